"""JSON Lines files of a user's own as a source, and as what a command is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from adapters_store.errors import UsageError
from training.examples import Examples
from training.sources.lines import JsonLines
from training.sources.planning import (
    Plan,
    check_splits,
    grouped,
    options,
    planned,
    renamed,
    splits_of,
)
from training.sources.prompts import ColumnPrompt
from training.sources.sections import DataSection, FieldsSection
from training.sources.templates import prompts_of
from training.suite.task import Example
from training.task import PARTS, Task

Parts = Mapping[str, Mapping[str, Sequence[Example]]]
"""Examples by task and part."""

FIELDS = FieldsSection(task="task", part="part")


def read_jsonl(path: Path, default_task: str | None = None) -> Parts:
    """Examples by task and part of a JSON Lines file, gzipped where its name ends in ``.gz``.

    A row has ``input``; ``output``, ``outputs`` or ``label``; ``task`` (else ``default_task``) and
    ``part`` (else ``train``). Raises TrainingError with the line, UsageError for an unreadable
    file.
    """
    tasks = grouped({"train": JsonLines(path)}, FIELDS, default_task)
    prompts = (ColumnPrompt(FIELDS),)
    return {
        task: {
            part: Examples.read(rows, prompts, range(len(rows)), None, with_outputs=False)
            for part, rows in parts.items()
        }
        for task, parts in tasks.items()
    }


def jsonl_task(name: str, parts: Mapping[str, Sequence[Example]], *, has_labels: bool) -> Task:
    """One task of such a file; with ``has_labels`` its labels are the outputs that occur."""
    found = {e.output for part in parts.values() for e in part} if has_labels else set()
    return Task(
        name=name,
        train=parts.get("train", ()),
        dev=parts.get("dev", ()),
        test=parts.get("test", ()),
        labels=tuple(sorted(found)),
    )


def plans(section: DataSection) -> list[Plan]:
    """The tasks of one file, by name; columns ``task`` and ``part`` unless ``fields`` says else."""
    options(
        section,
        *("path", "name", "fields", "splits", "templates", "template_tasks"),
        *("labels", "has_labels", "max_train_per_dataset"),
    )
    if section.path is None:
        raise UsageError("tasks.path is missing: the JSON Lines file of a `jsonl` source")
    own = section.fields
    fields = own.model_copy(update={"task": own.task or "task", "part": own.part or "part"})
    found = grouped({"train": JsonLines(Path(section.path))}, fields, section.name)
    check_splits(section, {part for parts in found.values() for part in parts})
    splits = splits_of(section, {part: part for part in PARTS})
    return planned(
        {
            task: renamed(found[task], splits, task, only=section.splits is not None)
            for task in sorted(found)
        },
        section,
        prompts_of(section),
    )
