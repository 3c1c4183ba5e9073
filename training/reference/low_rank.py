"""``low_rank``: ``y += scale * (x a) b`` by a hook on the linear map."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from adapters_store.primitives.low_rank import LowRankPart
from training.reference.stage import Call, Stage


def install(parts: Sequence[LowRankPart], stage: Stage) -> None:
    """Add each part's product at its site."""
    for part in parts:
        stem = f"{part.site}/low_rank"
        add_product(
            stage, part.site, stage.tensors[f"{stem}/a"], stage.tensors[f"{stem}/b"], part.scale
        )


def add_product(stage: Stage, site: str, a: torch.Tensor, b: torch.Tensor, scale: float) -> None:
    """Add ``scale * (x a) b`` to a site's output; ``a`` is (in, r), ``b`` (r, out)."""

    def effect(call: Call, y: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = call.get(0)
        return y + scale * ((x @ a) @ b)

    stage.after(stage.shapes.site(site).module_path, effect)
