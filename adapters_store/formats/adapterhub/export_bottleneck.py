"""``bottleneck`` parts as one bottleneck configuration of ``adapters``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from adapters_store.errors import RejectedArtefactError
from adapters_store.formats.adapterhub.activations import ACTIVATIONS
from adapters_store.formats.adapterhub.bottleneck import EPSILON, FLAGS
from adapters_store.formats.adapterhub.cover import Slot, cover
from adapters_store.formats.adapterhub.layout import Place, blocks
from adapters_store.formats.adapterhub.outgoing import NAME, Outgoing, only
from adapters_store.primitives.bottleneck import BottleneckPart, Reads

_READS: Mapping[Reads, Mapping[str, bool]] = {
    "output": {"original_ln_before": False, "is_parallel": False},
    "sum": {"original_ln_before": True, "is_parallel": False},
    "residual": {"original_ln_before": False, "is_parallel": True},
}
_NAMES = {activation: name for name, activation in reversed(ACTIVATIONS.items())}


def fill_bottleneck(outgoing: Outgoing) -> dict[str, Any]:
    """Add the tensors; returns the options, or raises RejectedArtefactError."""
    parts = {part.block: part for part in outgoing.parts(BottleneckPart)}
    places = {place.name: place for place in blocks(outgoing.layout, outgoing.shapes)}
    slots = [Slot(name, FLAGS[place.kind], place.layer) for name, place in places.items()]
    if len(parts) != len(outgoing.parts(BottleneckPart)):
        raise RejectedArtefactError("two bottlenecks share a block; `adapters` has room for one")
    switches, left_out = cover(parts, slots)
    reads = only((_reads(part, outgoing) for part in parts.values()), "what bottlenecks read")
    norm_eps = only((part.norm_eps for part in parts.values()), "norm_eps")
    if norm_eps not in (None, EPSILON):
        raise RejectedArtefactError(f"norm_eps is {norm_eps}; `adapters` norms with {EPSILON}")
    for name, part in parts.items():
        _put(part, f"{places[name].key}.{NAME}", outgoing)
    return {
        "architecture": None,
        **{flag: flag in switches for flag in FLAGS.values()},
        **_READS[reads],
        "leave_out": left_out,
        "reduction_factor": _factors(parts, places, outgoing),
        "non_linearity": _NAMES[only((part.activation for part in parts.values()), "activation")],
        "original_ln_after": True,
        "residual_before_ln": True,
        "adapter_residual_before_ln": False,
        "ln_before": norm_eps is not None,
        "ln_after": False,
        "scaling": only((part.scale for part in parts.values()), "scale"),
        "use_gating": False,
        "inv_adapter": None,
        "inv_adapter_reduction_factor": None,
        "phm_layer": False,
    }


def _reads(part: BottleneckPart, outgoing: Outgoing) -> Reads:
    """What the part reads; where norms stand behind, the sub-layer's input is the residual."""
    if part.reads != "input":
        return part.reads
    if outgoing.shapes.block(part.block).post_norm_path is None:
        raise RejectedArtefactError(
            f"the bottleneck at {part.block} reads the normed input; a parallel one of `adapters` "
            "reads the residual stream"
        )
    return "residual"


def _put(part: BottleneckPart, stem: str, outgoing: Outgoing) -> None:
    own, given = f"{part.block}/bottleneck/{part.reads}", outgoing.given
    down = f"{stem}.adapter_down.{int(part.norm_eps is not None)}"
    outgoing.tensors |= {
        f"{down}.weight": given[f"{own}/down"].T,
        f"{down}.bias": given[f"{own}/down_bias"],
        f"{stem}.adapter_up.weight": given[f"{own}/up"].T,
        f"{stem}.adapter_up.bias": given[f"{own}/up_bias"],
    }
    if part.norm_eps is not None:
        for norm in (f"{stem}.adapter_norm_before", f"{stem}.adapter_down.0"):
            outgoing.tensors[f"{norm}.weight"] = given[f"{own}/norm_gain"]
            outgoing.tensors[f"{norm}.bias"] = given[f"{own}/norm_bias"]


def _factors(
    parts: Mapping[str, BottleneckPart], places: Mapping[str, Place], outgoing: Outgoing
) -> Any:
    """One reduction factor, or one per layer."""
    ranks: dict[int, int] = {}
    for name, part in parts.items():
        layer = places[name].layer
        if ranks.setdefault(layer, part.rank) != part.rank:
            raise RejectedArtefactError(
                f"ranks {ranks[layer]} and {part.rank} in layer {layer}; `adapters` has one a layer"
            )
    width = outgoing.shapes.hidden_size
    factors = {layer: _factor(width, rank) for layer, rank in ranks.items()}
    if len(set(factors.values())) == 1:
        return next(iter(factors.values()))
    return {str(layer): factor for layer, factor in factors.items()}


def _factor(width: int, rank: int) -> int | float:
    """A number by which the library divides ``width`` to get ``rank``, rounding down."""
    if width % rank == 0:
        return width // rank
    factor = width / rank
    return factor if width // factor == rank else math.nextafter(factor, 0)
