"""Task sources: the generated suite, and JSON Lines files of a user's own."""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from pathlib import Path

from adapters_store.errors import TrainingError, UsageError
from training.recipe import TasksSection
from training.suite import HELD_OUT, SEEN, TASKS, Example, generate
from training.task import Task


def suite_task(name: str, section: TasksSection) -> Task:
    """One suite task with the section's numbers of examples per split."""
    spec = TASKS[name]
    return Task(
        name=name,
        train=generate(name, "train", section.num_train, section.seed),
        dev=generate(name, "dev", section.num_dev, section.seed),
        test=generate(name, "test", section.num_test, section.seed),
        description=spec.description,
    )


def _suite(section: TasksSection) -> list[Task]:
    groups = {"seen": SEEN, "held_out": HELD_OUT}
    names: list[str] = []
    for name in section.names or ("seen",):
        names += groups.get(name, (name,))
    return [suite_task(name, section) for name in names]


def _jsonl(section: TasksSection) -> list[Task]:
    if section.path is None:
        raise UsageError("tasks.path is missing: the JSON Lines file of a `jsonl` source")
    path = Path(section.path)
    rows: dict[str, dict[str, list[Example]]] = defaultdict(lambda: defaultdict(list))
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                row = json.loads(line)
                part = str(row.get("part", "train"))
                output = str(row["label"] if "label" in row else row["output"])
                rows[str(row["task"])][part].append(Example(str(row["input"]), output))
            except (ValueError, KeyError, AttributeError) as error:
                raise TrainingError(
                    f"{path}, line {number}: expected an object with task, input and output (or "
                    f"label); {type(error).__name__}: {error}"
                ) from error
    names = section.names or tuple(sorted(rows))
    missing = [name for name in names if name not in rows]
    if missing:
        raise TrainingError(f"{path} has no rows of task(s) {missing}; it has {sorted(rows)}")
    tasks = []
    for name in names:
        parts = rows[name]
        has_labels = section.has_labels
        found = {e.output for part in parts.values() for e in part} if has_labels else set()
        tasks.append(
            Task(
                name=name,
                train=parts["train"][: section.num_train],
                dev=parts["dev"][: section.num_dev],
                test=parts["test"][: section.num_test],
                labels=tuple(sorted(found)),
            )
        )
    return tasks


def load_tasks(section: TasksSection) -> list[Task]:
    """The tasks the section names, in order; raises TrainingError naming the file and the line."""
    return _suite(section) if section.source == "suite" else _jsonl(section)
