"""Reading the columns of a row: texts, class names, lists of answers; every fault names the row."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from adapters_store.errors import TrainingError
from training.examples import Place, Row

_OUTPUTS = ("label", "outputs", "output")


def value_of(row: Row, column: str, place: Place) -> Any:
    """The value in a column; ``a.b`` is the field b of a column a that holds objects.

    Raises TrainingError where there is no such column or no value.
    """
    value: Any = row
    for step in (column,) if column in row else column.split("."):
        if not isinstance(value, Mapping) or step not in value:
            raise TrainingError(unknown_column(column, row, place))
        value = value[step]
    if value is None:
        raise TrainingError(f"{place}: column {column!r} is null; expected a value")
    return value


def unknown_column(column: str, known: Iterable[str], place: Place) -> str:
    """The message about a column that a row does not have."""
    names = list(known)
    near = difflib.get_close_matches(column, names, n=1)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    return f"{place}: there is no column {column!r}; the row has {names}{guess}"


def text_of(row: Row, column: str, place: Place) -> str:
    """A column's value as text; the number of a class gives the class's name.

    Raises TrainingError for a list or an object, and for a number that is no class.
    """
    value = value_of(row, column, place)
    if column in place.rows.classes:
        return nth(place.rows.classes[column], value, column, place)
    if isinstance(value, list | dict):
        raise TrainingError(
            f"{place}: column {column!r} holds a {type(value).__name__}; expected text or a number"
        )
    return str(value)


def nth(names: Sequence[str], number: Any, column: str, place: Place) -> str:
    """The name at a position; raises TrainingError for one outside."""
    if not isinstance(number, int) or not 0 <= number < len(names):
        raise TrainingError(
            f"{place}: column {column!r} holds {number!r}; expected the number of one of "
            f"{list(names)}",
            hint="Unlabelled rows hold -1: leave such a split out.",
        )
    return names[number]


def output_column(row: Row, place: Place) -> str:
    """The first of the columns that an output is looked for in."""
    for column in _OUTPUTS:
        if column in row:
            return column
    raise TrainingError(
        f"{place}: expected a column {', '.join(_OUTPUTS[:-1])} or {_OUTPUTS[-1]}; "
        f"the row has {list(row)}",
        hint="Name the column that holds the output in `tasks.fields.output`.",
    )


def texts_of(row: Row, column: str, place: Place) -> tuple[str, ...]:
    """A column's list of texts; raises TrainingError for anything else or for an empty list."""
    values = value_of(row, column, place)
    if not isinstance(values, list) or not values or not all(map(_is_plain, values)):
        raise TrainingError(
            f"{place}: column {column!r} holds {values!r:.60}; expected a list of texts"
        )
    return tuple(map(str, values))


def _is_plain(value: Any) -> bool:
    return isinstance(value, str | int | float)
