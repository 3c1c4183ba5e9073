"""Values of the host on their way to the engine's device."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import torch
from torch import Tensor


def upload(
    values: Sequence[int] | Sequence[float] | Sequence[bool],
    device: torch.device,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """A tensor (n,) of host values on ``device``; the host does not wait for the copy."""
    if device.type == "cpu":
        return torch.tensor(values, dtype=dtype, device=device)
    host = torch.tensor(values, dtype=dtype, device="cpu", pin_memory=can_pin())
    return host.to(device, non_blocking=True)


@cache
def can_pin() -> bool:
    """True where this process can allocate pinned host memory."""
    return torch.cuda.is_available()
