"""``scale``: ``x *= v`` before a linear map, ``y *= v`` after all that is added to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from adapters_store.primitives.scale import ScalePart
from training.reference.stage import Call, Stage


def install(parts: Sequence[ScalePart], stage: Stage) -> None:
    """Multiply each part's side of its site."""
    for part in parts:
        _scale(stage, part, stage.tensors[f"{part.site}/scale/{part.side}"])


def _scale(stage: Stage, part: ScalePart, v: torch.Tensor) -> None:
    def scale_input(call: Call) -> None:
        call.set(0, call.get(0) * v)

    def scale_output(call: Call, y: torch.Tensor) -> torch.Tensor:
        return y * v

    path = stage.shapes.site(part.site).module_path
    if part.side == "input":
        stage.before(path, scale_input)
    else:
        stage.after(path, scale_output)
