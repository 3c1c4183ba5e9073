"""What a task does to the value it finds: each transform is a pure function of that value."""

from collections.abc import Callable
from dataclasses import dataclass

from training.suite.fields import CURRENCY_CODES, FLAGS, MONTHS, SEVERITY, Field


@dataclass(frozen=True)
class Transform:
    """A skill that maps the value of a field to the task's output.

    `apply(value, field)` is deterministic. With `in_place` the output is the whole input with the
    value replaced; otherwise it is the mapped value alone. `labels` lists every possible result of
    a classifying transform.
    """

    name: str
    apply: Callable[[str, Field], str]
    in_place: bool = False
    labels: tuple[str, ...] = ()


_SWAP_SEPARATORS = str.maketrans(",.", ".,")


def _redact(value: str, field: Field) -> str:
    if field.redact is None:
        raise ValueError(f"field {field.name!r} has no redaction; give it one in fields.py")
    return field.redact(value)


def _to_iso(value: str, field: Field) -> str:
    if "/" in value:
        month, day, year = value.split("/")
    else:
        day, month, year = value.split(".")
    return f"{year}-{month}-{day}"


def _to_us(value: str, field: Field) -> str:
    year, month, day = value.split("-")
    return f"{month}/{day}/{year}"


def _to_de(value: str, field: Field) -> str:
    year, month, day = value.split("-")
    return f"{day}.{month}.{year}"


def _to_long(value: str, field: Field) -> str:
    year, month, day = value.split("-")
    return f"{int(day)} {MONTHS[int(month) - 1]} {year}"


def _swap_separators(value: str, field: Field) -> str:
    return value.translate(_SWAP_SEPARATORS)


def _to_code(value: str, field: Field) -> str:
    number = value.lstrip("ACR$€£")
    return f"{number} {CURRENCY_CODES[value.removesuffix(number)]}"


def _drop_kilo(value: str, field: Field) -> str:
    number, unit = value.split(" ")
    whole, _, fraction = number.partition(".")
    return f"{whole}{fraction:0<3} {unit.removeprefix('k')}"


def _to_12h(value: str, field: Field) -> str:
    hour, minute = value.split(":")
    return f"{(int(hour) + 11) % 12 + 1}:{minute} {'AM' if int(hour) < 12 else 'PM'}"


def _camel(value: str, field: Field) -> str:
    first, *rest = value.split()
    return first + "".join(word.capitalize() for word in rest)


def _last_first(value: str, field: Field) -> str:
    first, last = value.split(" ")
    return f"{last}, {first}"


def _first_last(value: str, field: Field) -> str:
    last, first = value.split(", ")
    return f"{first} {last}"


IDENTITY = Transform("identity", lambda value, field: value)
UPPER = Transform("upper", lambda value, field: value.upper())
TITLE = Transform("title", lambda value, field: value.title())
SNAKE = Transform("snake", lambda value, field: "_".join(value.lower().split()))
KEBAB = Transform("kebab", lambda value, field: "-".join(value.lower().split()))
CAMEL = Transform("camel", _camel)
TRIM = Transform("trim", lambda value, field: value.strip())
INITIALS = Transform("initials", lambda value, field: "".join(w[0] + "." for w in value.split()))
LAST_FIRST = Transform("last-first", _last_first)
FIRST_LAST = Transform("first-last", _first_last)
DOMAIN = Transform("domain", lambda value, field: value.partition("@")[2])
PREFIX = Transform("prefix", lambda value, field: value.replace("-", " ").partition(" ")[0])
EXTENSION = Transform("extension", lambda value, field: value.rpartition(".")[2])
TO_ISO = Transform("to-iso", _to_iso)
TO_US = Transform("to-us", _to_us)
TO_DE = Transform("to-de", _to_de)
TO_LONG = Transform("to-long", _to_long)
DECIMAL_COMMA = Transform("decimal-comma", _swap_separators)
DECIMAL_POINT = Transform("decimal-point", _swap_separators)
TO_CODE = Transform("to-code", _to_code)
DROP_KILO = Transform("drop-kilo", _drop_kilo)
TO_12H = Transform("to-12h", _to_12h)
REDACT = Transform("redact", _redact, in_place=True)
SEVERITY_LABEL = Transform(
    "severity", lambda value, field: SEVERITY[value.lower()], labels=("ok", "warning", "critical")
)
TO_BOOL = Transform("to-bool", lambda value, field: FLAGS[value.lower()], labels=("true", "false"))
