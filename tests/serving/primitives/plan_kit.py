"""Adapters of random tensors, prepared, and both plans over the same tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from adapters_store.families.site import Site
from adapters_store.lazy import resolve
from adapters_store.primitives import Part
from serving.engine.plan import DecodePlan
from serving.primitives import PRIMITIVES
from serving.primitives.backend import plain_backend
from serving.primitives.layout import SiteLayout
from serving.primitives.plan import Plan, RunPlan
from serving.primitives.prepared import Prepared, Target

WIDTH, OUT = 12, 10
SITES = (
    Site("decoder.0.self.q", "q", WIDTH, OUT),
    Site("decoder.0.self.k", "k", WIDTH, OUT),
    Site("decoder.0.self.v", "v", WIDTH, OUT),
    Site("decoder.0.self.o", "o", OUT, WIDTH),
)
LAYOUT = SiteLayout(SITES)
CPU = torch.device("cpu")
TARGET = Target(LAYOUT, torch.float32, CPU)


def prepared_of(parts: Sequence[Part], tensors: dict[str, torch.Tensor]) -> Prepared:
    """What the engine makes of an adapter of ``parts``."""
    prepared = Prepared()
    for name in dict.fromkeys(part.primitive for part in parts):
        own = [part for part in parts if part.primitive == name]
        made = resolve(PRIMITIVES, name, "serving primitive")(own, tensors, TARGET)
        prepared = prepared.merged(made)
    return prepared


def run_plan(rows: Sequence[Prepared]) -> Plan[Any]:
    """The prefill plan of tokens with an adapter each; equal neighbours are one run."""
    runs, start = [], 0
    for stop in range(1, len(rows) + 1):
        if stop == len(rows) or rows[stop] is not rows[start]:
            runs.append((start, stop, rows[start]))
            start = stop
    return RunPlan(LAYOUT.packed, runs)


def decode_plan(rows: Sequence[Prepared], *, through: int = 0) -> Plan[Any]:
    """The decode plan of the rows, which come after ``through`` others that leave again."""
    active = frozenset(range(len(LAYOUT.packed)))
    plan = DecodePlan(
        LAYOUT.packed, active, torch.float32, CPU, "composed", 4.0, plain_backend(), 64
    )
    for i in range(through):
        plan.join(i, rows[i % len(rows)], 0)
    for last in reversed(range(through)):
        plan.leave(0, last)
    for i, prepared in enumerate(rows):
        plan.join(i, prepared, 0)
    return plan


def join_and_leave(
    table: Any,
    joins: Sequence[Any],
    leaves: Sequence[int],
    check: Callable[[Any, list[Any]], None],
) -> None:
    """Let rows join a table with what each brings, None for nothing, and leave again.

    ``leaves`` are taken modulo the rows there are; ``check`` gets the table and, after every
    change, what its rows brought.
    """
    batch: list[Any] = []
    for brought in joins:
        table.touch()
        if brought is not None:
            table.join(len(batch), brought)
        batch.append(brought)
        check(table, batch)
    for number in leaves:
        if not batch:
            break
        row = number % len(batch)
        table.leave(row, len(batch) - 1)
        batch[row] = batch[-1]
        batch.pop()
        check(table, batch)
