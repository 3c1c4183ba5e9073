"""Regular expressions of strangers, matched in linear time.

PEFT configurations hold regular expressions, and Python's matcher can take exponential time over
them. Here an expression becomes a set of states that are followed side by side, so that the work
is at most states times characters, and a meter bounds it over a whole configuration. What needs
memory of what was matched (back references, look-around) is refused.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from adapters_store.errors import InvalidArtefactError

MAX_LENGTH = 4000
MAX_STATES = 4000
MAX_STEPS = 4_000_000
_STEPS_PER_CHARACTER = 20
"""What reading an expression costs, in steps of matching."""

# The parser of ``re`` itself, so that an expression means here what it means there. It has no
# public name; it is the same in Python 3.11 to 3.13.
_sre: Any = import_module("re._parser")

_SIMPLE = re.compile(r"\^?(?:\w|-|\\?\.)*\$?")
"""Expressions without a choice or a repetition, which Python's matcher runs in linear time too."""

_Test = Callable[[str], bool]
_CATEGORIES: dict[str, _Test] = {
    "CATEGORY_DIGIT": str.isdecimal,
    "CATEGORY_NOT_DIGIT": lambda char: not char.isdecimal(),
    "CATEGORY_SPACE": str.isspace,
    "CATEGORY_NOT_SPACE": lambda char: not char.isspace(),
    "CATEGORY_WORD": lambda char: char.isalnum() or char == "_",
    "CATEGORY_NOT_WORD": lambda char: not (char.isalnum() or char == "_"),
}
_is_word = _CATEGORIES["CATEGORY_WORD"]


class Meter:
    """A budget of steps, shared by all expressions of one configuration."""

    def __init__(self, steps: int = MAX_STEPS) -> None:
        self.left = steps

    def spend(self, steps: int) -> None:
        """Raise InvalidArtefactError once the budget is gone."""
        self.left -= steps
        if self.left < 0:
            raise InvalidArtefactError(
                f"the configuration's regular expressions take more than {MAX_STEPS} steps",
                hint="Name the modules in lists instead of regular expressions.",
            )


class Pattern:
    """One expression. ``matches`` says whether it matches a whole text, as ``re.fullmatch``.

    With ``is_ending`` it may also match what follows one of the text's dots, as PEFT's rank and
    alpha patterns do. Reading and matching spend from ``meter``. Raises InvalidArtefactError for
    an expression that is malformed, too long, or needs memory, and as the meter does.
    """

    def __init__(self, expression: str, meter: Meter, *, is_ending: bool = False) -> None:
        self._meter = meter
        meter.spend(_STEPS_PER_CHARACTER * len(expression))
        shown = expression if len(expression) <= 80 else f"{expression[:77]}..."
        self._what = f"the regular expression {shown!r}"
        if len(expression) > MAX_LENGTH:
            raise InvalidArtefactError(f"{self._what} has more than {MAX_LENGTH} characters")
        is_simple = _SIMPLE.fullmatch(expression) is not None
        if is_ending:
            expression = rf"(.*\.)?({expression})$"
        self._simple = re.compile(expression) if is_simple else None
        # Of state i: a test of one character, a condition on a position, or neither; then targets.
        self._tests: list[_Test | None] = []
        self._conditions: list[str | None] = []
        self._targets: list[list[int]] = []
        self._end = self._state()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", FutureWarning)
                tree = _sre.parse(expression)
            if tree.state.flags != re.UNICODE.value:
                raise InvalidArtefactError(f"{self._what} sets flags; they are not supported")
            self._start = self._sequence(tree, self._end)
        except (re.error, RecursionError, OverflowError, FutureWarning) as error:
            raise InvalidArtefactError(f"{self._what} is malformed: {error}") from error

    def matches(self, text: str) -> bool:
        """True where the expression matches all of ``text``; raises as :class:`Meter` does."""
        if self._simple is not None:
            self._meter.spend(1)
            return self._simple.fullmatch(text) is not None
        current = self._reach([self._start], text, 0)
        for position, char in enumerate(text):
            moved = []
            for state in current:
                test = self._tests[state]
                if test is not None and test(char):
                    moved += self._targets[state]
            current = self._reach(moved, text, position + 1)
            if not current:
                return False
        return self._end in current

    def _reach(self, states: Sequence[int], text: str, position: int) -> set[int]:
        seen: set[int] = set()
        todo = list(states)
        while todo:
            state = todo.pop()
            if state in seen:
                continue
            seen.add(state)
            condition = self._conditions[state]
            if self._tests[state] is None and (
                condition is None or _holds(condition, text, position)
            ):
                todo += self._targets[state]
        self._meter.spend(len(seen) + 1)
        return seen

    def _state(self, *targets: int, test: _Test | None = None, condition: str | None = None) -> int:
        if len(self._targets) >= MAX_STATES:
            raise InvalidArtefactError(f"{self._what} needs more than {MAX_STATES} states")
        self._tests.append(test)
        self._conditions.append(condition)
        self._targets.append(list(targets))
        return len(self._targets) - 1

    def _sequence(self, nodes: Any, following: int) -> int:
        for kind, value in reversed(list(nodes)):
            following = self._node(str(kind), value, following)
        return following

    def _node(self, kind: str, value: Any, following: int) -> int:
        if kind == "SUBPATTERN":
            _, added, removed, body = value
            if not added and not removed:
                return self._sequence(body, following)
        elif kind == "BRANCH":
            return self._state(*(self._sequence(body, following) for body in value[1]))
        elif kind in ("MAX_REPEAT", "MIN_REPEAT"):
            least, most, body = value
            return self._repeat(least, most, body, following)
        elif kind == "AT" and str(value) in _POSITIONS:
            return self._state(following, condition=str(value))
        elif kind in _TESTS:
            return self._state(following, test=_TESTS[kind](value))
        raise InvalidArtefactError(
            f"{self._what} uses {kind.lower().replace('_', ' ')}, which is not supported",
            hint="Name the modules in lists instead of regular expressions.",
        )

    def _repeat(self, least: int, most: Any, body: Any, following: int) -> int:
        if str(most) == "MAXREPEAT":
            loop = self._state(following)
            self._targets[loop].append(self._sequence(body, loop))
            following = loop
        else:
            end = following
            for _ in range(int(most) - least):
                following = self._state(end, self._sequence(body, following))
        for _ in range(least):
            following = self._sequence(body, following)
        return following


def _holds(condition: str, text: str, position: int) -> bool:
    if condition in ("AT_BEGINNING", "AT_BEGINNING_STRING"):
        return position == 0
    if condition in ("AT_END", "AT_END_STRING"):
        return position == len(text)
    before = position > 0 and _is_word(text[position - 1])
    after = position < len(text) and _is_word(text[position])
    return (before != after) == (condition == "AT_BOUNDARY")


_POSITIONS = frozenset(
    {
        "AT_BEGINNING",
        "AT_BEGINNING_STRING",
        "AT_END",
        "AT_END_STRING",
        "AT_BOUNDARY",
        "AT_NON_BOUNDARY",
    }
)


def _literal(code: int) -> _Test:
    return chr(code).__eq__


def _not_literal(code: int) -> _Test:
    return chr(code).__ne__


def _any(_: None) -> _Test:
    return "\n".__ne__


def _one_of(items: Sequence[tuple[Any, Any]]) -> _Test:
    is_negated = str(items[0][0]) == "NEGATE"
    tests: list[_Test] = []
    for kind, value in items[1:] if is_negated else items:
        if str(kind) == "RANGE":
            low, high = chr(value[0]), chr(value[1])
            tests.append(lambda char, low=low, high=high: low <= char <= high)  # type: ignore[misc]
        elif str(kind) == "CATEGORY":
            tests.append(_CATEGORIES[str(value)])
        else:
            tests.append(_literal(value))
    return lambda char: any(test(char) for test in tests) != is_negated


_TESTS: dict[str, Callable[[Any], _Test]] = {
    "LITERAL": _literal,
    "NOT_LITERAL": _not_literal,
    "ANY": _any,
    "IN": _one_of,
}
