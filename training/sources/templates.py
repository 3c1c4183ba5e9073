"""The prompts of a section: its columns, its own templates, or a file of them."""

from __future__ import annotations

from pathlib import Path

from adapters_store.errors import UsageError
from training.examples import Prompt
from training.sources.planning import Prompts
from training.sources.prompts import ColumnPrompt
from training.sources.promptsource import read_templates
from training.sources.sections import DataSection, FieldsSection, TemplateSection


def prompts_of(section: DataSection) -> Prompts:
    """The section's prompts by the end of the task's name that they make.

    ``each`` template makes a task of its own, called after it, or all of them make ``one``.
    Raises UsageError for unnamed or equally named templates and for one that cannot be read.
    """
    templates = section.templates
    if isinstance(templates, str):
        templates = read_templates(Path(templates))
    if not templates:
        return {None: (ColumnPrompt(section.fields),)}
    prompts = [_prompt(template, section.fields) for template in templates]
    if section.template_tasks == "one" or (len(templates) == 1 and templates[0].name is None):
        return {None: prompts}
    names = [template.name for template in templates]
    if None in names or len(set(names)) < len(names):
        raise UsageError(f"templates that are tasks of their own need names of their own: {names}")
    return {name: (prompt,) for name, prompt in zip(names, prompts)}


def _prompt(template: TemplateSection, fields: FieldsSection) -> Prompt:
    if template.jinja is None:
        return ColumnPrompt(fields, template)
    from training.sources.jinja import JinjaPrompt

    return JinjaPrompt(template)
