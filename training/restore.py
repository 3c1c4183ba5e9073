"""Artefacts read back into training: as factors to evaluate, or as a bank to adapt."""

from __future__ import annotations

from types import UnionType
from typing import Any

import torch

from adapters_store.artefact import Artefact, load_tensors
from adapters_store.backbone import Backbone
from adapters_store.errors import IncompatibleError, UsageError
from adapters_store.primitives.head import HeadPart
from adapters_store.primitives.low_rank import LowRankPart
from adapters_store.primitives.scale import ScalePart
from training.methods.base import SiteMethod
from training.methods.effects import Side
from training.methods.fixed import FixedScale, FixedSite
from training.methods.mhr import compose
from training.methods.routing import sigmoid_gate
from training.model import AdaptedModel

_GATE_TOLERANCE = 3e-2  # relative: logits and weights may be stored in half precision
_LEAST_GATE = 1e-3  # a gate that is not quite shut still learns

Bank = dict[str, tuple[torch.Tensor, torch.Tensor, float]]
"""By site, in the bank's order: ``a`` (H, K, in/H, r), ``b`` (H, K, r, out/H) and the scale."""


def check_backbone(artefact: Artefact, backbone: Backbone) -> None:
    """Raise :class:`IncompatibleError` where the artefact is for another backbone."""
    if artefact.manifest.backbone != backbone.fingerprint:
        raise IncompatibleError(
            f"the {artefact.manifest.kind} is for backbone {artefact.manifest.backbone}; "
            f"{backbone.folder} is {backbone.fingerprint}"
        )


def check_parts(artefact: Artefact, kind: type | UnionType, what: str) -> None:
    """Raise :class:`UsageError` where an adapter has other parts than ``kind`` and a head."""
    parts = artefact.manifest.parts
    if others := {p.primitive for p in parts if not isinstance(p, kind | HeadPart)}:
        raise UsageError(f"{what} takes up no {', '.join(sorted(others))} parts of an adapter")


Pairs = dict[str, tuple[torch.Tensor, torch.Tensor, float]]
"""By site: ``a`` (in, r), ``b`` (r, out) and the scale."""


def read_pairs(artefact: Artefact) -> Pairs:
    """An adapter's low-rank pairs in float32; raises :class:`UsageError` for another kind."""
    if artefact.manifest.kind != "adapter":
        raise UsageError(f"expected an adapter, found a {artefact.manifest.kind}")
    tensors = load_tensors(artefact)
    return {
        part.site: (
            tensors[f"{part.site}/low_rank/a"].float(),
            tensors[f"{part.site}/low_rank/b"].float(),
            part.scale,
        )
        for part in artefact.manifest.low_rank_parts
    }


Vectors = dict[str, tuple[torch.Tensor, Side]]
"""By site: the vector (width,) and the side that it multiplies."""


def read_vectors(artefact: Artefact) -> Vectors:
    """An adapter's scales in float32; raises :class:`UsageError` for another kind."""
    if artefact.manifest.kind != "adapter":
        raise UsageError(f"expected an adapter, found a {artefact.manifest.kind}")
    tensors = load_tensors(artefact)
    return {
        part.site: (tensors[f"{part.site}/scale/{part.side}"].float(), part.side)
        for part in artefact.manifest.parts
        if isinstance(part, ScalePart)
    }


def read_bank(artefact: Artefact) -> Bank:
    """A bank's factors in float32; raises :class:`UsageError` for another kind of artefact."""
    if artefact.manifest.kind != "bank":
        raise UsageError(f"expected a bank, found a {artefact.manifest.kind}")
    tensors = load_tensors(artefact)
    return {
        part.site: (
            tensors[f"{part.site}/mixture/a"].float(),
            tensors[f"{part.site}/mixture/b"].float(),
            part.scale,
        )
        for part in artefact.manifest.bank_parts
    }


def read_logits(artefact: Artefact, bank: Artefact) -> torch.Tensor:
    """A routing's logits (S, H, K) under the sigmoid gate, by which new tasks are routed.

    A routing that was learnt under another gate gives the logits of its weights. Raises where it
    has no logits or belongs to another bank.
    """
    if artefact.manifest.bank != bank.digest:
        raise IncompatibleError(
            f"the routing is over bank {artefact.manifest.bank}, not {bank.digest}"
        )
    tensors = load_tensors(artefact)
    logits = tensors.get("routing/logits")
    if logits is None:
        raise UsageError("the routing carries no logits; publish it with them to start from it")
    logits, weights = logits.float(), tensors["routing/weights"].float()
    if torch.allclose(sigmoid_gate(logits), weights, rtol=_GATE_TOLERANCE, atol=1e-4):
        return logits
    return torch.logit(weights.clamp(_LEAST_GATE, 1 - _LEAST_GATE))


def restore(
    model: Any, backbone: Backbone, artefact: Artefact, bank: Artefact | None = None
) -> AdaptedModel:
    """``model`` adapted to the task of an adapter or routing artefact, as task 0.

    Raises :class:`UsageError` for a bank, or for a routing without its ``bank``.
    """
    check_backbone(artefact, backbone)
    manifest, tensors = artefact.manifest, load_tensors(artefact)
    if manifest.kind == "bank":
        raise UsageError("a bank is no task: give a routing or an adapter")
    if manifest.kind == "routing":
        methods = _composed(backbone, tensors["routing/weights"].float(), artefact, bank)
    else:
        methods = _fixed(backbone, artefact)
    head = manifest.head_part
    adapted = AdaptedModel(
        model,
        [backbone.sites[name] for name in methods],
        methods,
        num_labels=[head.num_labels] if head else (),
    )
    if head:
        adapted.heads.load_state_dict(
            {"0.weight": tensors["head/weight"], "0.bias": tensors["head/bias"]}
        )
    return adapted.eval()


def _fixed(backbone: Backbone, artefact: Artefact) -> dict[str, SiteMethod]:
    others = [
        part
        for part in artefact.manifest.parts
        if not isinstance(part, LowRankPart | ScalePart | HeadPart)
    ]
    pairs, vectors = read_pairs(artefact), read_vectors(artefact)
    if others or pairs.keys() & vectors.keys():
        raise UsageError(
            "training takes up adapters of low_rank or scale parts, one at a site; found "
            + ", ".join(sorted({part.primitive for part in artefact.manifest.parts}))
        )
    found: dict[str, SiteMethod] = {}
    for name, pair in pairs.items():
        found[name] = FixedSite(backbone.sites[name], *pair)
    for name, (vector, side) in vectors.items():
        found[name] = FixedScale(backbone.sites[name], vector, side)
    return found


def _composed(
    backbone: Backbone, weights_SHK: torch.Tensor, artefact: Artefact, bank: Artefact | None
) -> dict[str, SiteMethod]:
    part = artefact.manifest.routing_part
    if bank is None or bank.digest != artefact.manifest.bank or part is None:
        raise UsageError(f"a routing needs its bank {artefact.manifest.bank}")
    factors = read_bank(bank)
    found: dict[str, SiteMethod] = {}
    for name, weights_HK in zip(part.sites, weights_SHK):
        a, b, scale = factors[name]
        composed_a, composed_b = compose(weights_HK[None], a, b)
        found[name] = FixedSite(backbone.sites[name], composed_a[0], composed_b[0], scale)
    return found
