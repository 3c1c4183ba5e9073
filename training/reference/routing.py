"""``routing``: a task's weights over its bank, handed to the bank's ``mixture`` parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from adapters_store.errors import UsageError
from adapters_store.primitives.routing import WEIGHTS, RoutingPart
from training.reference import mixture
from training.reference.stage import Stage


def install(parts: Sequence[RoutingPart], stage: Stage) -> None:
    """Apply the bank with the part's weights; raises UsageError where the bank is missing."""
    for part in parts:
        if stage.bank is None:
            raise UsageError("a routing needs its bank")
        mixing = dict(zip(part.sites, stage.tensors[WEIGHTS]))
        mixture.install(stage.bank.bank_parts, replace(stage, mixing=mixing))
