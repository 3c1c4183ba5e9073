"""``routing``: a task's weights over its bank, handed to the bank's ``mixture`` parts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from adapters_store.primitives.routing import WEIGHTS, RoutingPart
from training.reference import mixture
from training.reference.stage import Stage


def install(parts: Sequence[RoutingPart], stage: Stage) -> None:
    """Apply the bank with the part's weights."""
    for part in parts:
        assert stage.bank is not None, "a routing is validated together with its bank"
        mixing = dict(zip(part.sites, stage.tensors[WEIGHTS]))
        mixture.install(stage.bank.bank_parts, replace(stage, mixing=mixing))
