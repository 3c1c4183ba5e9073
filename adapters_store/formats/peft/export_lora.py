"""``low_rank`` parts as LoRA; mixed ranks and scales travel in rank_pattern and alpha_pattern."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from adapters_store.errors import RejectedArtefactError
from adapters_store.formats.peft.biases import B_BIAS, BASE_BIAS
from adapters_store.formats.peft.lora import A, B
from adapters_store.formats.peft.outgoing import Outgoing
from adapters_store.primitives.low_rank import LowRankPart
from adapters_store.primitives.override import OverridePart

if TYPE_CHECKING:
    import torch

CONV1D_TYPES = ("gpt2",)
"""Model types whose linear maps store (in, out)."""


def fill(outgoing: Outgoing) -> None:
    """Add the parts of a plain adapter; raises RejectedArtefactError for what PEFT lacks."""
    parts = outgoing.parts(LowRankPart)
    factors = {
        part.site: (
            outgoing.given[f"{part.site}/low_rank/a"],
            outgoing.given[f"{part.site}/low_rank/b"],
        )
        for part in parts
    }
    fill_updates(outgoing, parts, factors)


def fill_updates(
    outgoing: Outgoing,
    parts: Sequence[LowRankPart],
    factors: dict[str, tuple[torch.Tensor, torch.Tensor]],
) -> None:
    """Add updates with their factors by site, then overrides and the head."""
    (rank, alpha), _ = Counter((part.rank, _alpha(part)) for part in parts).most_common(1)[0]
    targets, ranks, alphas = [], {}, {}
    for part in parts:
        site = outgoing.shapes.site(part.site)
        path = outgoing.path(site.module_path)
        targets.append(path)
        if part.rank != rank:
            ranks[path] = part.rank
        if _alpha(part) != alpha:
            alphas[path] = _alpha(part)
        a, b = factors[part.site]
        outgoing.put(site.module_path, A, a.t())
        outgoing.put(site.module_path, B, b.t())
    outgoing.options |= {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "target_modules": sorted(targets),
        "fan_in_fan_out": outgoing.model_type in CONV1D_TYPES,
        "bias": "none",
        "lora_bias": False,
    }
    overrides = outgoing.parts(OverridePart)
    names = {part.vector for part in overrides}
    biases = [part for part in overrides if _is_lone_bias(outgoing, part, names)]
    _fill_biases(outgoing, parts, biases)
    outgoing.save_norms([part for part in overrides if part not in biases])
    outgoing.save_head()


def _alpha(part: LowRankPart) -> float:
    """The alpha that, divided by the rank, is the part's scale: to the last bit if any can be."""
    near = part.scale * part.rank
    for alpha in (near, math.nextafter(near, math.inf), math.nextafter(near, -math.inf)):
        if alpha / part.rank == part.scale:
            return int(alpha) if alpha.is_integer() else alpha
    return near


def _is_lone_bias(outgoing: Outgoing, part: OverridePart, names: set[str]) -> bool:
    """Whether a bias is overridden and not the whole norm that it may belong to."""
    module, parameter = outgoing.vector_path(part.vector)
    if parameter != "bias":
        return False
    return outgoing.is_bias(part) or not outgoing.vectors_of(module) <= names


def _fill_biases(
    outgoing: Outgoing, parts: Sequence[LowRankPart], biases: Sequence[OverridePart]
) -> None:
    scales = {f"{part.site}.bias": part.scale for part in parts}
    present = {name for name in scales if outgoing.shapes.vector(name).is_present}
    added = {
        part.vector
        for part in biases
        if part.operation == "add" or not outgoing.shapes.vector(part.vector).is_present
    }
    replaced = {part.vector for part in biases} - added
    if not added <= {name for name, scale in scales.items() if scale != 0}:
        raise RejectedArtefactError(
            "PEFT adds to the biases of adapted sites (lora_bias), times a scale that is not 0; "
            f"the artefact adds to {sorted(added)[:3]}"
        )
    if replaced and not present <= replaced:
        raise RejectedArtefactError(
            "PEFT saves the biases of all adapted sites or of none; the artefact has none for "
            f"{sorted(present - replaced)[:3]}"
        )
    for name in scales if added else ():
        module, _ = outgoing.vector_path(name)
        outgoing.put(module, B_BIAS, _added(outgoing, name, scales[name], name in added))
    for name in replaced:
        module, _ = outgoing.vector_path(name)
        suffix = BASE_BIAS if name in scales else ".bias"
        outgoing.put(module, suffix, outgoing.given[f"{name}/override/value"])
    if replaced:
        outgoing.options["bias"] = "lora_only" if replaced <= set(scales) else "all"
    outgoing.options["lora_bias"] = bool(added)


def _added(outgoing: Outgoing, name: str, scale: float, is_given: bool) -> torch.Tensor:
    """The bias that gives a site's added value once it is scaled; zeros where it has none."""
    import torch

    if not is_given:
        return torch.zeros(outgoing.shapes.vector(name).size)
    return outgoing.given[f"{name}/override/value"].float() / scale
