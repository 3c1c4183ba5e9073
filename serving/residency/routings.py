"""Routing vectors of one bank's tasks: one tensor that grows, a row a task.

Shapes: ``N`` row capacity, ``S`` sites of the bank, ``H`` heads, ``K`` skills.
"""

from __future__ import annotations

import torch
from torch import Tensor

_FIRST_CAPACITY = 64


class RoutingTable:
    """Weights (N, S, H, K) of tasks that share one bank; a task keeps its row until it leaves."""

    def __init__(self, shape_SHK: torch.Size, dtype: torch.dtype) -> None:
        self._weights = torch.empty(0, *shape_SHK, dtype=dtype, device="cpu")
        self._free: list[int] = []

    def __len__(self) -> int:
        return self._weights.shape[0] - len(self._free)

    @property
    def shape(self) -> torch.Size:
        """(S, H, K)."""
        return self._weights.shape[1:]

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of every row."""
        return self._weights.dtype

    @property
    def num_bytes(self) -> int:
        """Bytes of the whole tensor, rows without a task included."""
        return self._weights.nbytes

    @torch.inference_mode()
    def add(self, weights_SHK: Tensor) -> int:
        """Copy a task's weights in and return its row; a full table grows by a quarter."""
        if not self._free:
            self._grow()
        row = self._free.pop()
        self._weights[row] = weights_SHK
        return row

    def weights(self, row: int) -> Tensor:
        """A copy (S, H, K) of a row: it stays what it is when the row gets another task."""
        return self._weights[row].clone()

    def remove(self, row: int) -> None:
        """Free a row."""
        self._free.append(row)

    def _grow(self) -> None:
        old = self._weights
        capacity = old.shape[0] + max(_FIRST_CAPACITY, old.shape[0] // 4)
        self._weights = old.new_empty(capacity, *old.shape[1:])
        self._weights[: old.shape[0]] = old
        self._free = list(range(capacity - 1, old.shape[0] - 1, -1))
