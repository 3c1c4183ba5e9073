"""The kinds of text a value is found in: each source renders its targets among other values."""

import functools
import random
import string
from collections.abc import Callable
from dataclasses import dataclass

from training.suite import fields
from training.suite.fields import Field
from training.suite.lexicon import Lexicon


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of an input: the value of `field`, or punctuation and fixed words if None."""

    text: str
    field: Field | None = None


@dataclass(frozen=True)
class Source:
    """A text format. `render` returns segments whose texts, joined, are the input.

    Every target field occurs in the segments exactly once; fields that are not targets may occur.
    """

    name: str
    render: Callable[[random.Random, Lexicon, tuple[Field, ...]], list[Segment]]


_RECORD_FIELDS = (
    fields.CITY,
    fields.LEVEL,
    fields.ID,
    fields.NAME,
    fields.CITY,
    fields.AMOUNT,
    fields.FLAG,
    fields.ID,
    fields.DATE,
    fields.SERVICE,
    fields.EMAIL,
    fields.PHONE,
)
_SHORT_FIELDS = (fields.CITY, fields.LEVEL, fields.ID, fields.AMOUNT, fields.FLAG)


def _columns(
    rng: random.Random, lexicon: Lexicon, targets: tuple[Field, ...]
) -> list[tuple[Field, Segment]]:
    """Return the targets and one or two other fields, each once, in random order."""
    chosen = list(targets)
    pools = (_RECORD_FIELDS, _SHORT_FIELDS) if rng.random() < 0.35 else (_RECORD_FIELDS,)
    for pool in pools:
        other = rng.choice(pool)
        while other in chosen:
            other = rng.choice(pool)
        chosen.append(other)
    rng.shuffle(chosen)
    return [(field, Segment(field.sample(rng, lexicon), field)) for field in chosen]


def _json(rng: random.Random, lexicon: Lexicon, targets: tuple[Field, ...]) -> list[Segment]:
    segments: list[Segment] = []
    opening = '{"'
    for field, value in _columns(rng, lexicon, targets):
        segments += (Segment(f'{opening}{field.name}":"'), value)
        opening = '","'
    return [*segments, Segment('"}')]


def _kv(rng: random.Random, lexicon: Lexicon, targets: tuple[Field, ...]) -> list[Segment]:
    segments: list[Segment] = []
    for field, value in _columns(rng, lexicon, targets):
        gap = "; " if segments else ""
        segments += (Segment(f"{gap}{field.name}="), value)
    return segments


def _csv(rng: random.Random, lexicon: Lexicon, targets: tuple[Field, ...]) -> list[Segment]:
    columns = _columns(rng, lexicon, targets)
    segments: list[Segment] = []
    gap = ";".join(field.name for field, _ in columns) + "\n"
    for _, value in columns:
        segments += (Segment(gap), value)
        gap = ";"
    return segments


def _log(rng: random.Random, lexicon: Lexicon, targets: tuple[Field, ...]) -> list[Segment]:
    second = rng.randrange(60)
    parts = (
        fields.DATE,
        " ",
        fields.CLOCK,
        f":{second:02d} ",
        fields.LEVEL,
        " ",
        fields.SERVICE,
        f": {rng.choice(_LOG_STATES)} ",
        fields.WORD,
    )
    return _fill(rng, lexicon, parts)


def _mail(rng: random.Random, lexicon: Lexicon, targets: tuple[Field, ...]) -> list[Segment]:
    header = rng.choice(("From", "To", "Cc", "Sender", "Reply-To"))
    return _fill(rng, lexicon, (f"{header}: ", fields.NAME, " <", fields.EMAIL, ">"))


def _url(rng: random.Random, lexicon: Lexicon, targets: tuple[Field, ...]) -> list[Segment]:
    scheme = rng.choice(("https", "https", "http", "ftp"))
    folder = f"/{rng.choice(_FOLDERS)}/"
    return _fill(rng, lexicon, (f"{scheme}://", fields.HOST, folder, fields.FILE))


def _plain(rng: random.Random, lexicon: Lexicon, targets: tuple[Field, ...]) -> list[Segment]:
    return _fill(rng, lexicon, targets)


def _text(rng: random.Random, lexicon: Lexicon, targets: tuple[Field, ...]) -> list[Segment]:
    """Return a sentence with the targets in random order, sometimes beside another contact."""
    chosen = list(targets)
    if len(chosen) == 1 and chosen[0] in _CONTACTS and rng.random() < 0.35:
        chosen.append(rng.choice([field for field in _CONTACTS if field is not chosen[0]]))
    if len(chosen) == 1:
        template = rng.choice(_SENTENCES[chosen[0]])
        return _fill(rng, lexicon, _parse(template, **{chosen[0].name: chosen[0]}))
    rng.shuffle(chosen)
    first, second = chosen
    return _fill(rng, lexicon, _parse(rng.choice(_PAIR_SENTENCES), first=first, second=second))


def _fill(rng: random.Random, lexicon: Lexicon, parts: tuple[str | Field, ...]) -> list[Segment]:
    return [
        Segment(part) if isinstance(part, str) else Segment(part.sample(rng, lexicon), part)
        for part in parts
    ]


@functools.cache
def _parse(template: str, **slots: Field) -> tuple[str | Field, ...]:
    """Split a template such as "mail {email} the {word}" into literals and the slots' fields."""
    parts: list[str | Field] = []
    for literal, slot, _, _ in string.Formatter().parse(template):
        parts += [literal] if literal else []
        parts += [slots.get(slot, fields.WORD)] if slot else []
    return tuple(parts)


_CONTACTS = (fields.NAME, fields.EMAIL, fields.PHONE)
_FOLDERS = ("docs", "files", "pub", "data", "img", "a/b", "v2", "news", "in", "archive")
_LOG_STATES = ("lost", "slow", "no", "retry", "bad", "new", "sent", "late", "closed")
_SENTENCES: dict[Field, tuple[str, ...]] = {
    fields.EMAIL: (
        "mail {email} the {word}",
        "send {word} to {email}",
        "{email} wants {word}",
        "cc {email} on {word}",
        "{word} by {email} today",
    ),
    fields.PHONE: (
        "call {phone} about {word}",
        "{word} line: {phone}",
        "text {phone} the {word}",
        "{word} at {phone} now",
        "{phone} asked for {word}",
    ),
    fields.NAME: (
        "ask {name} about {word}",
        "{name} signed the {word}",
        "{word} for {name}",
        "give {name} the {word}",
        "{word} by {name} today",
    ),
    fields.ID: (
        "order {id} has {word}",
        "{word} {id} is late",
        "close ticket {id}: {word}",
        "move {word} to {id}",
        "{id} needs {word}",
    ),
    fields.MONEY: (
        "paid {money} for {word}",
        "{word} costs {money}",
        "refund {money} on {word}",
        "{money} due for {word}",
        "sold {word} at {money} today",
    ),
}
_PAIR_SENTENCES = (
    "{first} or {second}",
    "ask {first} or {second}",
    "{word}: {first}, {second}",
    "try {first} then {second}",
)

JSON = Source("json", _json)
KV = Source("kv", _kv)
CSV = Source("csv", _csv)
LOG = Source("log", _log)
MAIL = Source("mail", _mail)
URL = Source("url", _url)
TEXT = Source("text", _text)
PLAIN = Source("plain", _plain)
