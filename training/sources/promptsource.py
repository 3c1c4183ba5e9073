"""Reading P3's files of templates: PromptSource's ``templates.yaml`` as it is published."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from adapters_store.errors import UsageError
from training.sources.sections import TemplateSection, faults, one_line


class _Loader(yaml.SafeLoader):
    """Plain YAML, with the two tags of PromptSource read as mappings."""


def _mapping(loader: yaml.SafeLoader, node: yaml.Node) -> dict[Any, Any]:
    assert isinstance(node, yaml.MappingNode)
    return loader.construct_mapping(node, deep=True)


for _tag in ("!Template", "!TemplateMetadata"):
    _Loader.add_constructor(_tag, _mapping)


def read_templates(path: Path) -> tuple[TemplateSection, ...]:
    """The templates in a file of PromptSource, or in a list of our own, in the file's order.

    Raises UsageError for an unreadable file and for one that holds no templates.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read templates {path}: {one_line(error)}") from error
    if isinstance(content, dict) and isinstance(content.get("templates"), dict):
        content = [_own(one, path) for one in content["templates"].values()]
    if not isinstance(content, list) or not content:
        raise UsageError(f"{path} holds no templates; expected PromptSource's file or a list")
    try:
        return tuple(TemplateSection.model_validate(one) for one in content)
    except ValidationError as error:
        raise UsageError(f"{path}: {'; '.join(faults(error))}") from error


def _own(template: Any, path: Path) -> dict[str, Any]:
    if not isinstance(template, dict):
        raise UsageError(f"{path} holds a template that is no mapping: {template!r:.60}")
    return {key: template.get(key) for key in ("name", "jinja", "answer_choices")}
