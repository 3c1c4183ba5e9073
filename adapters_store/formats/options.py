"""Options of foreign configurations: what each means here, and reading them by those rules.

Each field of a model of options carries a :class:`Rule`. ``convert`` options decide what is built,
``accept`` options change nothing, ``reject`` options may only hold their default or nothing at all.
An option that the model does not name may only hold nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

from adapters_store.formats.draft import Draft

Options = TypeVar("Options", bound=BaseModel)


@dataclass(frozen=True, slots=True)
class Rule:
    """What an option means for an import, in one sentence."""

    verdict: Literal["convert", "accept", "reject"]
    text: str


def convert(text: str) -> Rule:
    """The option decides what is built."""
    return Rule("convert", text)


def accept(text: str) -> Rule:
    """The option changes nothing."""
    return Rule("accept", text)


def reject(text: str) -> Rule:
    """The option may only hold its default or nothing at all."""
    return Rule("reject", text)


def read_settings(
    draft: Draft, settings_type: type[Options], config: Mapping[str, Any]
) -> Options | None:
    """The options of a configuration; None, with the reasons, where their types are wrong."""
    try:
        settings = settings_type.model_validate(dict(config))
    except ValidationError as error:
        for item in error.errors(include_url=False, include_input=False):
            where = ".".join(str(step) for step in item["loc"][:2])
            draft.reject("unreadable", f"option {where!r}: {item['msg']}", where)
        draft.stop()
        return None
    for name, field in settings_type.model_fields.items():
        rule, value = rule_of(field.metadata), getattr(settings, name)
        if rule.verdict == "reject" and value != field.default and not _is_empty(value):
            message = f"option {name!r} is {_shown(value)}, which is not supported: it {rule.text}"
            draft.reject("unsupported_option", message, name)
    for name, value in (settings.model_extra or {}).items():
        if not _is_empty(value):
            message = f"option {name!r} is {_shown(value)}, and this option is not known"
            draft.reject("unknown_option", message, name)
    return settings


def rule_of(metadata: list[Any]) -> Rule:
    """The rule among a field's annotations."""
    rule: Rule = next(item for item in metadata if isinstance(item, Rule))
    return rule


def _is_empty(value: Any) -> bool:
    return value is None or value is False or value in ({}, [], "")


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
