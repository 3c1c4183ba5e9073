"""Prompts in the style of P3: one jinja template that writes ``input ||| target``.

Source: Bach et al. 2022 (PromptSource). A row has its columns as variables, class numbers as
numbers, and ``answer_choices`` as the list of answers. Templates run in jinja's sandbox.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from jinja2 import StrictUndefined, Template, TemplateError, pass_context
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

from adapters_store.errors import TrainingError, UsageError
from training.examples import Place, Row, Rows
from training.sources.prompts import SEPARATOR, checked, split_choices
from training.sources.sections import TemplateSection
from training.suite.task import Example

_GUARD = "\ue000\ue001\ue000"  # stands for the separator inside a row's own texts
_INDEX = "_index"
_RENDERING = (
    *(TemplateError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError),
    *(RecursionError, MemoryError),
)


class JinjaPrompt:
    """Applies to the rows for which the template writes an input and a target.

    A template may write nothing for a row by a condition; such a row is not for it. The filter
    ``choice`` draws by the row's position, so that it draws the same each time.
    """

    def __init__(self, template: TemplateSection) -> None:
        self.what = f"template {template.name!r}" if template.name else "the template"
        source = template.jinja or ""
        if SEPARATOR not in source:
            raise UsageError(f"{self.what} has no {SEPARATOR} between its input and its target")
        self.template = _compiled(source, self.what)
        choices = template.answer_choices
        self.choices = None if choices is None else _compiled(choices, self.what)

    def example(self, rows: Rows, index: int) -> Example | None:
        """The row's example, or None where the template writes no input or no target for it."""
        place = Place(rows, index, f", {self.what}")
        row: dict[str, Any] = {name: _guarded(value) for name, value in rows[index].items()}
        variables = row | {_INDEX: index}
        choices = None
        if self.choices is not None:
            choices = split_choices(self._rendered(self.choices, variables, row, place))
        variables["answer_choices"] = None if choices is None else list(choices)
        parts = self._rendered(self.template, variables, row, place).split(SEPARATOR)
        if len(parts) > 2:
            raise TrainingError(f"{place} wrote {SEPARATOR} {len(parts) - 1} times; expected once")
        text, target = (_unguarded(part).strip() for part in (*parts, "")[:2])
        if not text or not target:
            return None
        answers = tuple(_unguarded(choice) for choice in choices or ())
        return checked(Example(text, target, choices=answers), place)

    def _rendered(
        self, template: Template, variables: Mapping[str, Any], row: Row, place: Place
    ) -> str:
        try:
            return template.render(variables)
        except _RENDERING as error:
            raise TrainingError(
                f"{place} cannot be filled: {type(error).__name__}: {error}; "
                f"the row has {list(row)}"
            ) from error


def most_frequent(items: Sequence[Any]) -> list[Any]:
    """The items that occur most often, in the order of their first occurrence."""
    counts = Counter(items)
    return [item for item, count in counts.items() if count == max(counts.values())]


@pass_context
def choice(context: Context, items: Sequence[Any]) -> Any:
    """One of the items, drawn by the row's position."""
    return random.Random(context[_INDEX]).choice(items)


@lru_cache(maxsize=1)
def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined)
    environment.globals.update(zip=zip, enumerate=enumerate)
    environment.filters.update(choice=choice, most_frequent=most_frequent)
    return environment


def _compiled(source: str, what: str) -> Template:
    try:
        return _environment().from_string(source)
    except (TemplateError, RecursionError) as error:
        raise UsageError(f"{what} is no jinja: {error}") from error


def _guarded(value: Any) -> Any:
    if isinstance(value, str):
        return value.replace(SEPARATOR, _GUARD)
    if isinstance(value, list):
        return [_guarded(one) for one in value]
    if isinstance(value, Mapping):
        return {name: _guarded(one) for name, one in value.items()}
    return value


def _unguarded(text: str) -> str:
    return text.replace(_GUARD, SEPARATOR)
