"""Whether what was computed is finite, asked of a device once for many inputs."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def are_finite(*groups: Sequence[Tensor]) -> list[bool]:
    """Whether the i-th tensors of all ``groups`` hold neither NaN nor infinity, for each i."""
    sums = [torch.stack([one.sum(dtype=torch.float32) for one in group]) for group in groups]
    found: list[bool] = torch.stack(sums).isfinite().all(dim=0).tolist()
    return found
