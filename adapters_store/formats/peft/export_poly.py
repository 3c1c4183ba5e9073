"""A routing over a bank as Poly with one task, or mixed into plain LoRA where Poly has no form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters_store.artefact import load_tensors
from adapters_store.formats.peft import poly
from adapters_store.formats.peft.export_lora import CONV1D_TYPES, fill_updates
from adapters_store.formats.peft.outgoing import Outgoing
from adapters_store.manifest import BankPart
from adapters_store.primitives.low_rank import LowRankPart
from adapters_store.primitives.routing import LOGITS, WEIGHTS
from adapters_store.skills import task_as_lora

if TYPE_CHECKING:
    import torch

_TOLERANCE = 1e-6
_CLOSED = -1e4
"""A logit whose sigmoid is 0 in float32."""


def fill(outgoing: Outgoing) -> None:
    """Add the bank with one task's logits, or the task's mixed updates, and the head."""
    assert outgoing.bank is not None, "validation has asked for a routing's bank"
    parts, shared = outgoing.bank.manifest.bank_parts, load_tensors(outgoing.bank)
    weights = outgoing.given[WEIGHTS]
    logits = _logits(weights, outgoing.given.get(LOGITS))
    is_poly = {part.rank for part in parts} == {parts[0].rank} and all(
        part.scale == 1 / part.rank for part in parts
    )
    if logits is None or not is_poly or outgoing.model_type in CONV1D_TYPES:
        _fill_mixed(outgoing, list(parts), shared, weights)
        return
    targets = []
    for part, own in zip(parts, logits):
        module = outgoing.shapes.site(part.site).module_path
        targets.append(outgoing.path(module))
        outgoing.put(module, poly.A, shared[f"{part.site}/mixture/a"])
        outgoing.put(module, poly.B, shared[f"{part.site}/mixture/b"])
        outgoing.put(module, poly.ROUTER, own.reshape(1, -1))
    outgoing.options |= {
        "peft_type": "POLY",
        "poly_type": "poly",
        "r": parts[0].rank,
        "n_tasks": 1,
        "n_skills": parts[0].num_skills,
        "n_splits": parts[0].num_heads,
        "target_modules": sorted(targets),
    }
    outgoing.save_head()


def _logits(weights: torch.Tensor, given: torch.Tensor | None) -> torch.Tensor | None:
    """Logits (S, H, K) that Poly's gate turns into the weights; None where there are none."""
    import torch

    if given is not None and torch.allclose(
        poly.GATE.weigh(given.float()), weights.float(), atol=_TOLERANCE, rtol=0
    ):
        return given
    wanted = weights.double()
    largest = wanted.amax(-1, keepdim=True)
    if bool((largest <= 0).any()) or not torch.allclose(
        wanted.sum(-1), torch.ones((), dtype=wanted.dtype), atol=_TOLERANCE, rtol=0
    ):
        return None
    return (wanted / (2 * largest)).logit().clamp_min(_CLOSED).float()


def _fill_mixed(
    outgoing: Outgoing,
    parts: list[BankPart],
    shared: dict[str, torch.Tensor],
    weights: torch.Tensor,
) -> None:
    updates, factors = [], {}
    for part, own in zip(parts, weights):
        a, b = shared[f"{part.site}/mixture/a"], shared[f"{part.site}/mixture/b"]
        factors[part.site] = task_as_lora(a.float(), b.float(), own.float())
        updates.append(LowRankPart(site=part.site, rank=part.rank, scale=part.scale))
    fill_updates(outgoing, updates, factors)
