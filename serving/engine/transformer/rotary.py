"""Rotary positions (RoFormer, arXiv 2104.09864): queries and keys turned by their position.

Shapes: ``T`` tokens, ``h`` heads, ``d`` head width, ``f`` = d / 2 frequencies.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from adapters_store.families.architecture import Rotary

Angles = tuple[Tensor, Tensor]
"""Cosines (T, 1, d), and sines (T, 1, d) whose first half is negated."""


class RotaryPositions:
    """Angles of positions; all in float32, rounded to ``dtype`` at the end."""

    def __init__(
        self, record: Rotary, head_dim: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._frequencies = frequencies(record, head_dim).to(device)
        self._dtype = dtype

    def angles(self, positions_T: Tensor) -> Angles:
        """What :func:`turn` needs for tokens at these positions (T,) int64."""
        angles_Tf = positions_T.unsqueeze(1).float() * self._frequencies
        cos_Tf, sin_Tf = angles_Tf.cos(), angles_Tf.sin()
        cos = torch.cat((cos_Tf, cos_Tf), dim=1).to(self._dtype)
        sin = torch.cat((-sin_Tf, sin_Tf), dim=1).to(self._dtype)
        return cos.unsqueeze(1), sin.unsqueeze(1)


def frequencies(record: Rotary, head_dim: int) -> Tensor:
    """Frequencies (f,) in radians a position, float32, scaled as the record says."""
    steps = torch.arange(0, head_dim, 2, dtype=torch.float) / head_dim
    plain = 1.0 / (record.theta**steps)
    if record.scaling is None:
        return plain
    scaled = plain / record.factor
    if record.scaling == "linear":
        return scaled
    turns = record.original_positions * plain / (2 * math.pi)
    share = (turns - record.low_factor) / (record.high_factor - record.low_factor)
    smooth = (1 - share) * scaled + share * plain
    found = torch.where(turns < record.low_factor, scaled, smooth)
    return torch.where(turns > record.high_factor, plain, found)


def turn(x_Thd: Tensor, angles: Angles) -> None:
    """Turn every head in place; component ``i`` is paired with ``i + d / 2``."""
    cos, sin = angles
    swapped = x_Thd.roll(x_Thd.shape[-1] // 2, dims=-1)
    x_Thd.mul_(cos).addcmul_(swapped, sin)
