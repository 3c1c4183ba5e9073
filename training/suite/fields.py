"""The values a tenant's data holds: each field draws one value and knows how it is redacted."""

import random
from collections.abc import Callable
from dataclasses import dataclass

from training.suite.lexicon import Lexicon
from training.suite.wordlist import words

MONTHS = words("Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec")
SEVERITY: dict[str, str] = {
    **dict.fromkeys(("trace", "debug", "info", "notice", "ok"), "ok"),
    **dict.fromkeys(("warn", "warning"), "warning"),
    **dict.fromkeys(("error", "err", "crit", "critical", "fatal", "panic", "alert"), "critical"),
}
FLAGS: dict[str, str] = {
    **dict.fromkeys(("yes", "y", "true", "t", "on", "1", "enabled"), "true"),
    **dict.fromkeys(("no", "n", "false", "f", "off", "0", "disabled"), "false"),
}
CURRENCY_CODES = {"$": "USD", "C$": "CAD", "A$": "AUD", "R$": "BRL", "€": "EUR", "£": "GBP"}
KILO_UNITS = ("km", "kg", "kW", "kV", "kHz", "kJ", "kPa", "kB")
DIAL_CODES = words("1 7 30 31 33 34 39 41 44 45 46 47 48 49 55 61 81 91 351 353 358 420")
FILE_EXTENSIONS = words("pdf csv txt json xml zip png jpg html docx xlsx log yaml md")

_DAYS_PER_MONTH = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_TOP_DOMAINS = words("com com org net io de eu fr co.uk")
_SUBDOMAINS = ("", "", "www.", "docs.", "api.", "shop.")
_SERVICE_KINDS = words("api db auth web cron queue cache proxy sync worker")
_SYMBOLS = ("$",) * 10 + ("C$", "A$", "R$") * 3 + ("€", "£")
_LEVELS_BY_LABEL = {
    label: tuple(level for level, meaning in SEVERITY.items() if meaning == label)
    for label in ("ok", "warning", "critical")
}
_LABELS = tuple(_LEVELS_BY_LABEL)
_FLAG_SPELLINGS = tuple(FLAGS)


@dataclass(frozen=True)
class Field:
    """A kind of value.

    `name` is the skill and the key that holds the value in a record; `sample` draws a value in the
    field's own notation; `redact` hides what is personal in a value, or is None for public fields.
    """

    name: str
    sample: Callable[[random.Random, Lexicon], str]
    redact: Callable[[str], str] | None = None


def _name(rng: random.Random, lexicon: Lexicon) -> str:
    return f"{rng.choice(lexicon.first_names)} {rng.choice(lexicon.last_names)}"


def _name_last_first(rng: random.Random, lexicon: Lexicon) -> str:
    return f"{rng.choice(lexicon.last_names)}, {rng.choice(lexicon.first_names)}"


def _city(rng: random.Random, lexicon: Lexicon) -> str:
    return rng.choice(lexicon.cities)


def _email(rng: random.Random, lexicon: Lexicon) -> str:
    user = rng.choice(lexicon.first_names).lower()
    style = rng.random()
    if style < 0.3:
        user = f"{user[0]}.{rng.choice(lexicon.last_names).lower()}"
    elif style < 0.4:
        user = f"{user}{rng.randrange(1, 100)}"
    return f"{user}@{rng.choice(lexicon.domains)}.{rng.choice(_TOP_DOMAINS)}"


def _phone(rng: random.Random, lexicon: Lexicon) -> str:
    gap = " " if rng.random() < 0.7 else "-"
    area, line = rng.randrange(200, 1000), rng.randrange(10000)
    return f"+{rng.choice(DIAL_CODES)}{gap}{area}{gap}{line:04d}"


def _day(rng: random.Random) -> tuple[int, int, int]:
    month = rng.randrange(12)
    return rng.randrange(1990, 2035), month + 1, rng.randint(1, _DAYS_PER_MONTH[month])


def _date(rng: random.Random, lexicon: Lexicon) -> str:
    year, month, day = _day(rng)
    return f"{year}-{month:02d}-{day:02d}"


def _us_date(rng: random.Random, lexicon: Lexicon) -> str:
    year, month, day = _day(rng)
    return f"{month:02d}/{day:02d}/{year}"


def _de_date(rng: random.Random, lexicon: Lexicon) -> str:
    year, month, day = _day(rng)
    return f"{day:02d}.{month:02d}.{year}"


def _amount(rng: random.Random, lexicon: Lexicon) -> str:
    whole = rng.randrange(rng.choice((10, 100, 1000, 10_000, 10_000, 100_000)))
    return f"{whole:,}.{rng.randrange(100):02d}"


def _de_amount(rng: random.Random, lexicon: Lexicon) -> str:
    return _amount(rng, lexicon).translate(str.maketrans(",.", ".,"))


def _money(rng: random.Random, lexicon: Lexicon) -> str:
    return rng.choice(_SYMBOLS) + _amount(rng, lexicon)


def _quantity(rng: random.Random, lexicon: Lexicon) -> str:
    whole = rng.randrange(1, rng.choice((10, 100, 1000)))
    tenth = f".{rng.randrange(1, 10)}" if rng.random() < 0.3 else ""
    return f"{whole}{tenth} {rng.choice(KILO_UNITS)}"


def _clock(rng: random.Random, lexicon: Lexicon) -> str:
    return f"{rng.randrange(24):02d}:{rng.randrange(60):02d}"


def _level(rng: random.Random, lexicon: Lexicon) -> str:
    level = rng.choice(_LEVELS_BY_LABEL[rng.choice(_LABELS)])
    return level.upper() if rng.random() < 0.6 else level


def _flag(rng: random.Random, lexicon: Lexicon) -> str:
    flag = rng.choice(_FLAG_SPELLINGS)
    style = rng.randrange(3)
    return flag if style == 0 else flag.upper() if style == 1 else flag.capitalize()


def _service(rng: random.Random, lexicon: Lexicon) -> str:
    return f"{rng.choice(lexicon.services)}-{rng.choice(_SERVICE_KINDS)}"


def _id(rng: random.Random, lexicon: Lexicon) -> str:
    digits = f"{rng.randrange(1000, 100_000)}"
    return digits if rng.random() < 0.5 else f"{rng.choice('ABCEHKMPRSTX')}-{digits}"


def _host(rng: random.Random, lexicon: Lexicon) -> str:
    top_domain = rng.choice(_TOP_DOMAINS)
    return f"{rng.choice(_SUBDOMAINS)}{rng.choice(lexicon.domains)}.{top_domain}"


def _file(rng: random.Random, lexicon: Lexicon) -> str:
    stem = _word(rng, lexicon)
    number = f"-{rng.randrange(1, 100)}" if rng.random() < 0.3 else ""
    return f"{stem}{number}.{rng.choice(FILE_EXTENSIONS)}"


def _word(rng: random.Random, lexicon: Lexicon) -> str:
    return rng.choice(lexicon.nouns if rng.random() < 0.4 else lexicon.products)


def _phrase(rng: random.Random, lexicon: Lexicon) -> str:
    return " ".join(_word(rng, lexicon) for _ in range(rng.choice((2, 2, 3))))


def _padded_phrase(rng: random.Random, lexicon: Lexicon) -> str:
    return " " * rng.randrange(4) + _phrase(rng, lexicon) + " " * rng.randrange(1, 4)


def _initials_of(value: str) -> str:
    return " ".join(f"{part[0]}." for part in value.split())


NAME = Field("name", _name, _initials_of)
NAME_LAST_FIRST = Field("name-last-first", _name_last_first)
CITY = Field("city", _city)
EMAIL = Field("email", _email, lambda value: "<email>")
PHONE = Field("phone", _phone, lambda value: "<phone>")
DATE = Field("date", _date)
US_DATE = Field("us-date", _us_date)
DE_DATE = Field("de-date", _de_date)
AMOUNT = Field("amount", _amount)
DE_AMOUNT = Field("de-amount", _de_amount)
MONEY = Field("money", _money)
QUANTITY = Field("quantity", _quantity)
CLOCK = Field("clock", _clock)
LEVEL = Field("level", _level)
FLAG = Field("active", _flag)
SERVICE = Field("service", _service)
ID = Field("id", _id, lambda value: "<id>")
HOST = Field("host", _host)
FILE = Field("file", _file)
WORD = Field("word", _word)
PHRASE = Field("phrase", _phrase)
PADDED_PHRASE = Field("padded-phrase", _padded_phrase)
