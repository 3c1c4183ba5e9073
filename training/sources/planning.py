"""From rows to tasks: grouped by task and part, put under prompts, capped by a draw, checked."""

from __future__ import annotations

import random
import re
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from hashlib import sha256

from adapters_store.errors import TrainingError, UsageError
from training.examples import Examples, Place, Prompt, Rows
from training.sources.columns import text_of
from training.sources.rows import Part
from training.sources.sections import DataSection, FieldsSection
from training.task import PARTS, Task

_MAX_NAME = 63

Prompts = Mapping[str | None, Sequence[Prompt]]
"""By the end of a task's name, None for none: the prompts that its rows are put under."""


@dataclass(frozen=True)
class Plan:
    """A task that can be made: its name, and what reads and checks its rows."""

    name: str
    make: Callable[[], Task]


def grouped(
    parts: Mapping[str, Rows], fields: FieldsSection, name: str | None
) -> dict[str, dict[str, Rows]]:
    """The rows by task and part; ``name`` is the task of rows that name none.

    Without columns for task and part the rows are taken as they are, unread. Raises TrainingError
    for a row that names no task where there is no ``name``.
    """
    if fields.task is None and fields.part is None and name is not None:
        return {name: dict(parts)}
    if fields.part is not None and len(parts) > 1:
        raise UsageError(f"a column of parts ({fields.part!r}) goes with one split, not {[*parts]}")
    found: dict[str, dict[tuple[str, str], array[int]]] = defaultdict(dict)
    for split, rows in parts.items():
        for index in range(len(rows)):
            row, place, task, part = rows[index], Place(rows, index), name, split
            if fields.task is not None and (fields.task in row or name is None):
                task = text_of(row, fields.task, place)
            if task is None:
                raise TrainingError(f"{place}: the row names no task")
            if fields.part is not None and fields.part in row:
                part = text_of(row, fields.part, place)
            found[task].setdefault((split, part), array("Q")).append(index)
    return {
        task: {part: Part(parts[split], places) for (split, part), places in own.items()}
        for task, own in found.items()
    }


def splits_of(section: DataSection, usual: Mapping[str, str]) -> dict[str, str | None]:
    """The data's own name of each part: what the section says, else what is usual."""
    splits: dict[str, str | None] = dict(usual)
    for part, split in (section.splits or {}).items():
        splits[part] = split
    return splits


def check_splits(section: DataSection, known: Collection[str], usual: Iterable[str] = ()) -> None:
    """Raise UsageError for a split that the section names, or of ``usual``, that is not there."""
    wanted = {split for split in (section.splits or {}).values() if split is not None}
    if missing := sorted(wanted.union(usual).difference(known)):
        raise UsageError(f"{section.path} has no split(s) {missing}; it has {sorted(known)}")


def renamed(
    parts: Mapping[str, Rows], splits: Mapping[str, str | None], task: str, *, only: bool
) -> dict[str, Rows]:
    """The rows by our parts, where ``splits`` gives the data's names of them.

    Raises TrainingError for a part of another name, unless ``only`` those named are wanted.
    """
    others = sorted(parts.keys() - {split for split in splits.values() if split is not None})
    if others and not only:
        raise TrainingError(
            f"task {task!r} has rows of part(s) {others}; expected {', '.join(PARTS)}",
            hint="Say in `tasks.splits` which of the parts are train, dev and test.",
        )
    return {
        part: parts[split] for part, split in splits.items() if split is not None and split in parts
    }


def planned(
    tasks: Mapping[str, Mapping[str, Rows]],
    section: DataSection,
    prompts: Prompts,
    labels: Sequence[str] | None = None,
) -> list[Plan]:
    """A plan for each task and each group of prompts; ``labels`` are the data's own."""
    share = section.max_train_per_dataset
    cap = None if share is None else max(1, share // len(prompts))
    limits = [limit for limit in (section.num_train, cap) if limit is not None]
    caps = dict(zip(PARTS, (min(limits, default=None), section.num_dev, section.num_test)))
    return [
        Plan(name, partial(_task, name, parts, tuple(group), caps, section, labels))
        for task, parts in tasks.items()
        for end, group in prompts.items()
        for name in [task if end is None else publishable(f"{task}.{publishable(end)}")]
    ]


def _task(
    name: str,
    parts: Mapping[str, Rows],
    prompts: Sequence[Prompt],
    limits: Mapping[str, int | None],
    section: DataSection,
    own_labels: Sequence[str] | None,
) -> Task:
    labels = section.labels or own_labels
    wanted = section.has_labels or labels is not None
    read: dict[str, Examples] = {}
    for part in PARTS:
        rows, limit, seed = parts.get(part), limits[part], f"{section.seed}/{name}/{part}"
        if rows is not None and limit != 0:
            keys = _keys(part, len(rows), len(prompts), limit, seed)
            read[part] = Examples.read(rows, prompts, keys, limit, with_outputs=wanted)
    if section.has_labels and labels is None:
        labels = sorted({output for part in read.values() for output in part.outputs or ()})
    return Task(
        name,
        read.get("train", ()),
        read.get("dev", ()),
        read.get("test", ()),
        labels=tuple(labels or ()),
    )


def _keys(
    part: str, num_rows: int, num_prompts: int, limit: int | None, seed: str
) -> Iterable[int]:
    """Training rows under every prompt, others under one that is drawn.

    In a drawn order where there is a limit, which a prompt that passes over rows reaches later,
    and for dev always: a step is scored by its first rows, and files are often sorted.
    """
    rng = random.Random(seed)
    total = num_rows * num_prompts if part == "train" else num_rows
    is_drawn = part == "dev" or (limit is not None and limit < total)
    order = shuffled(total, rng) if is_drawn else range(total)
    if part == "train" or num_prompts == 1:
        return order
    return (row * num_prompts + rng.randrange(num_prompts) for row in order)


def shuffled(count: int, rng: random.Random) -> Iterator[int]:
    """0 to ``count`` in random order, drawn one by one; memory only for what was drawn."""
    moved: dict[int, int] = {}
    for index in range(count):
        other = rng.randrange(index, count)
        yield moved.get(other, other)
        moved[other] = moved.pop(index, index)


def select(plans: Sequence[Plan], names: Sequence[str] | None, where: str) -> list[Plan]:
    """The plans whose names match the patterns, in the order of ``names``; all without names.

    Raises TrainingError for two plans of one name and for patterns that match none.
    """
    repeated = sorted(name for name, count in Counter(p.name for p in plans).items() if count > 1)
    if repeated:
        raise TrainingError(
            f"{where} has several tasks named {repeated}",
            hint="Give the data sets or templates a `name` of their own.",
        )
    if names is None:
        return list(plans)
    missing = [name for name in names if not any(fnmatchcase(p.name, name) for p in plans)]
    if missing:
        raise TrainingError(
            f"{where} has no rows of task(s) {missing}; it has {[plan.name for plan in plans]}"
        )
    chosen = {p.name: p for name in names for p in plans if fnmatchcase(p.name, name)}
    return list(chosen.values())


def publishable(text: str) -> str:
    """A legal name like the text: lower case, others than ``a-z0-9._-`` as ``-``, not too long."""
    name = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._") or "task"
    if len(name) <= _MAX_NAME:
        return name
    return f"{name[: _MAX_NAME - 9]}-{sha256(text.encode()).hexdigest()[:8]}"


def options(section: DataSection, *used: str) -> None:
    """Raise UsageError for options that are set but mean nothing to the section's source."""
    fields = type(section).model_fields
    known = {"source", "names", "seed", "mixing", "num_train", "num_dev", "num_test", *used}
    extra = [
        name
        for name, field in fields.items()
        if name not in known and getattr(section, name) != field.get_default()
    ]
    if extra:
        raise UsageError(f"source {section.source!r} takes no {', '.join(extra)}")
