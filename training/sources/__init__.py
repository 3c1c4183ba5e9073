"""Where tasks come from: a lazy table from a source's name to what plans its tasks."""

from __future__ import annotations

from collections.abc import Callable

from adapters_store.errors import TrainingError
from adapters_store.lazy import resolve
from training.sources.jsonl import Parts, jsonl_task, read_jsonl
from training.sources.planning import Plan, select
from training.sources.sections import DataSection
from training.sources.suite import suite_task
from training.task import Task

__all__ = ["SOURCES", "Parts", "jsonl_task", "load_tasks", "plans", "read_jsonl", "suite_task"]

SOURCES: dict[str, str] = {
    "suite": "training.sources.suite:plans",
    "jsonl": "training.sources.jsonl:plans",
    "datasets": "training.sources.arrow:plans",
    "instructions": "training.sources.instructions:plans",
    "collection": "training.sources.collection:plans",
}


def plans(section: DataSection) -> list[Plan]:
    """What the section names, in order, not yet read; every name occurs once.

    Raises UsageError for an unknown source or an option that it does not take, TrainingError for
    names that the source does not have or has twice.
    """
    function: Callable[[DataSection], list[Plan]] = resolve(SOURCES, section.source, "task source")
    names = None if section.source == "suite" else section.names
    where = section.path or section.source
    if found := select(function(section), names, where):
        return found
    raise TrainingError(f"{where} holds no tasks")


def load_tasks(section: DataSection) -> list[Task]:
    """The tasks the section names, in order; raises TrainingError naming the file and the row.

    Every row is read once, and checked; rows of files stay on disk and are read again when they
    are drawn.
    """
    return [plan.make() for plan in plans(section)]
