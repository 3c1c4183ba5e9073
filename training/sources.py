"""Task sources: the generated suite, and JSON Lines files of a user's own."""

from __future__ import annotations

import difflib
import gzip
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapters_store.errors import TrainingError, UsageError
from training.recipe import TasksSection
from training.suite import HELD_OUT, SEEN, TASKS, Example, generate
from training.task import Task

Parts = dict[str, dict[str, list[Example]]]


def suite_task(name: str, section: TasksSection) -> Task:
    """One suite task with the section's numbers of examples per split.

    Raises :class:`UsageError` for a name that the suite does not have.
    """
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"the suite has no task {name!r}{guess}")
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


def read_jsonl(path: Path, default_task: str | None = None) -> Parts:
    """Examples by task and part of a JSON Lines file, gzipped where its name ends in ``.gz``.

    A row has ``input``, ``output`` or ``label``, ``task`` (else ``default_task``) and ``part``
    (else ``train``); it may list ``references``, every output that counts as right, and
    ``choices``, the outputs to choose from. Raises TrainingError with the line, UsageError for an
    unreadable file.
    """
    rows: Parts = defaultdict(lambda: defaultdict(list))
    opener = gzip.open if path.suffix == ".gz" else open
    number = 0
    try:
        with opener(path, "rt", encoding="utf-8") as file:
            for line in file:
                number += 1
                row = json.loads(line)
                task = row["task"] if default_task is None else row.get("task", default_task)
                example = _example(row)
                rows[str(task)][str(row.get("part", "train"))].append(example)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"{path}, line {number}: expected an object with task, input and output (or "
            f"label); {type(error).__name__}: {error}"
        ) from error
    return rows


def _example(row: Mapping[str, Any]) -> Example:
    output = str(row["label"] if "label" in row else row["output"])
    lists = []
    for key in ("references", "choices"):
        found = row.get(key, [])
        if not isinstance(found, list):
            raise TypeError(f"{key} is no list: {found!r}")
        lists.append(tuple(map(str, found)))
    return Example(str(row["input"]), output, *lists)


def jsonl_task(name: str, parts: Mapping[str, Sequence[Example]], *, has_labels: bool) -> Task:
    """One task of such a file; with ``has_labels`` its labels are the outputs that occur."""
    found = {e.output for part in parts.values() for e in part} if has_labels else set()
    return Task(
        name=name,
        train=tuple(parts.get("train", ())),
        dev=tuple(parts.get("dev", ())),
        test=tuple(parts.get("test", ())),
        labels=tuple(sorted(found)),
    )


def _jsonl(section: TasksSection) -> list[Task]:
    if section.path is None:
        raise UsageError("tasks.path is missing: the JSON Lines file of a `jsonl` source")
    rows = read_jsonl(Path(section.path))
    names = section.names or tuple(sorted(rows))
    missing = [name for name in names if name not in rows]
    if missing:
        raise TrainingError(
            f"{section.path} has no rows of task(s) {missing}; it has {sorted(rows)}"
        )
    limits = {"train": section.num_train, "dev": section.num_dev, "test": section.num_test}
    return [
        jsonl_task(
            name,
            {part: rows[name][part][:limit] for part, limit in limits.items()},
            has_labels=section.has_labels,
        )
        for name in names
    ]


def load_tasks(section: TasksSection) -> list[Task]:
    """The tasks the section names, in order; raises TrainingError naming the file and the line."""
    return _suite(section) if section.source == "suite" else _jsonl(section)
