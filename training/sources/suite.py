"""The generated suite as a source: its tasks by name, or the groups ``seen`` and ``held_out``."""

from __future__ import annotations

import difflib
from functools import partial

from adapters_store.errors import UsageError
from training.sources.planning import Plan, options
from training.sources.sections import DataSection
from training.suite import HELD_OUT, SEEN, TASKS, generate
from training.task import Task

_GROUPS = {"seen": SEEN, "held_out": HELD_OUT}
_NUM_TRAIN, _NUM_DEV, _NUM_TEST = 10_000, 100, 200


def suite_task(name: str, section: DataSection) -> Task:
    """One suite task with the section's numbers of examples per split.

    Raises :class:`UsageError` for a name that the suite does not have.
    """
    if name not in TASKS:
        near = difflib.get_close_matches(name, TASKS, n=1)
        guess = f"; did you mean {near[0]!r}?" if near else ""
        raise UsageError(f"the suite has no task {name!r}{guess}")
    num_train = _NUM_TRAIN if section.num_train is None else section.num_train
    num_dev = _NUM_DEV if section.num_dev is None else section.num_dev
    num_test = _NUM_TEST if section.num_test is None else section.num_test
    return Task(
        name=name,
        train=generate(name, "train", num_train, section.seed),
        dev=generate(name, "dev", num_dev, section.seed),
        test=generate(name, "test", num_test, section.seed),
        description=TASKS[name].description,
    )


def plans(section: DataSection) -> list[Plan]:
    """The suite tasks the section names; by default the seen ones."""
    options(section)
    names = [one for name in section.names or ("seen",) for one in _GROUPS.get(name, (name,))]
    return [Plan(name, partial(suite_task, name, section)) for name in names]
