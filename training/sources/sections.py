"""The recipe's words for data: where it lies, which columns, which prompts, how much, what mix."""

from __future__ import annotations

from typing import Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails


class Section(BaseModel):
    """A part of a recipe: typed, immutable, without unknown fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def faults(error: ValidationError) -> list[str]:
    """Every bad field of a section, each with what is wrong with it."""
    return [_fault(one) for one in error.errors()]


def _fault(fault: ErrorDetails) -> str:
    place, found = ".".join(map(str, fault["loc"])) or "recipe", fault["input"]
    is_shown = isinstance(found, str | int | float) and fault["type"] != "extra_forbidden"
    return f"{place}: {fault['msg']}" + (f", found {found!r:.60}" if is_shown else "")


def one_line(error: Exception) -> str:
    """Why a file could not be read, without its name, on one line."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem}"
    return " ".join(str(error).split())


class FieldsSection(Section):
    """Which columns a row's parts lie in.

    Several input columns are joined by line breaks. ``output`` may hold a text, a list of texts
    (all accepted, the first is learnt), a class number or a position in ``choices``; by default
    it is the first of ``label``, ``outputs`` and ``output`` that there is.
    """

    input: str | tuple[str, ...] = "input"
    output: str | None = None
    choices: str | None = None
    task: str | None = None
    part: str | None = None


class TemplateSection(Section):
    """A prompt: ``input`` and ``output`` with ``{column}`` placeholders, or ``jinja``.

    ``jinja`` is written as for P3, ``input ||| target``; ``answer_choices`` separates the answers
    by ``|||`` in either style. ``name`` names the template's task.
    """

    name: str | None = None
    input: str | None = None
    output: str | None = None
    jinja: str | None = None
    answer_choices: str | None = None

    @model_validator(mode="after")
    def _one_style(self) -> Self:
        if (self.input is None) == (self.jinja is None):
            raise ValueError("a template has either input or jinja")
        if self.jinja is not None and self.output is not None:
            raise ValueError("a jinja template writes its output after |||, not in output")
        return self


class DataSection(Section):
    """One source of tasks and how much of it; which options a source takes, the source checks.

    ``splits`` gives the data's own names of the parts, None leaving a part out. ``num_*`` cap
    each task's parts by a draw from ``seed``; None takes all (of the generated suite: 10,000, 100
    and 200). ``max_train_per_dataset`` is divided among the templates.
    """

    source: str = "suite"
    path: str | None = None
    config: str | None = None
    revision: str | None = None
    split: str | None = None
    splits: dict[Literal["train", "dev", "test"], str | None] | None = None
    name: str | None = None
    names: tuple[str, ...] | None = None
    fields: FieldsSection = FieldsSection()
    templates: str | tuple[TemplateSection, ...] = ()
    template_tasks: Literal["each", "one"] = "each"
    num_positive: int = Field(default=0, ge=0)
    has_definition: bool = True
    labels: tuple[str, ...] | None = None
    has_labels: bool = False
    num_train: int | None = Field(default=None, ge=1)
    num_dev: int | None = Field(default=None, ge=0)
    num_test: int | None = Field(default=None, ge=0)
    max_train_per_dataset: int | None = Field(default=None, ge=1)
    seed: int = 0


class MixingSection(Section):
    """How the tasks share a run: equally, in proportion to their sizes, or between the two.

    ``max_examples`` counts no task as larger than this; ``temperature`` flattens the proportions.
    """

    rule: Literal["balanced", "proportional", "temperature"] = "balanced"
    temperature: float | None = Field(default=None, gt=0)
    max_examples: int | None = Field(default=None, ge=1)

    @model_validator(mode="after")
    def _used(self) -> Self:
        if (self.rule == "temperature") != (self.temperature is not None):
            raise ValueError("temperature goes with rule temperature, and only with it")
        if self.rule == "balanced" and self.max_examples is not None:
            raise ValueError("max_examples goes with rule proportional or temperature")
        return self


class TasksSection(DataSection):
    """Which data a run learns from, and how its tasks share the run."""

    mixing: MixingSection = MixingSection()
