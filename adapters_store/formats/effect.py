"""Whether an imported adapter changes anything: only its values can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from adapters_store.formats.inspection import Reason
from adapters_store.primitives import Part
from adapters_store.primitives.bottleneck import BottleneckPart
from adapters_store.primitives.low_rank import LowRankPart
from adapters_store.primitives.mixture import BankPart
from adapters_store.primitives.override import OverridePart
from adapters_store.primitives.scale import ScalePart

if TYPE_CHECKING:
    import torch

_UP = ("up", "up_bias")


def effect_notes(parts: Sequence[Part], tensors: Mapping[str, torch.Tensor]) -> tuple[Reason, ...]:
    """A note where no part changes anything, as for an adapter that was never trained."""
    if not all(_is_idle(part, tensors) for part in parts):
        return ()
    primitives = ", ".join(sorted({part.primitive for part in parts}))
    return (Reason("no_effect", f"all {len(parts)} parts ({primitives}) change nothing"),)


def _is_idle(part: Part, tensors: Mapping[str, torch.Tensor]) -> bool:
    if isinstance(part, LowRankPart | BankPart):
        stem = f"{part.site}/{part.primitive}"
        return part.scale == 0 or any(not tensors[f"{stem}/{name}"].any() for name in "ba")
    if isinstance(part, BottleneckPart):
        stem = f"{part.block}/bottleneck/{part.reads}"
        return part.scale == 0 or not any(tensors[f"{stem}/{name}"].any() for name in _UP)
    if isinstance(part, ScalePart):
        return bool((tensors[f"{part.site}/scale/{part.side}"] == 1).all())
    if isinstance(part, OverridePart) and part.operation == "add":
        return not tensors[f"{part.vector}/override/value"].any()
    return False
