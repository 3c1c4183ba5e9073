"""Key/value slabs: one tensor a layer, rows x positions, grown in buckets.

Row ``i`` of a slab belongs to row ``i`` of the decode batch. What lies beyond a row's length is
finite and masked.

Shapes: ``N`` row capacity, ``P`` position capacity, ``I`` attention width (heads * head_dim).
"""

from __future__ import annotations

import torch
from torch import Tensor

_ROW_BUCKET = 8
_POSITION_BUCKET = 32


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is at least ``value``."""
    return -(-value // multiple) * multiple


class Slab:
    """Keys and values of all layers: per layer a tensor (N, P, 2*I), keys first."""

    def __init__(
        self,
        num_layers: int,
        num_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._num_heads = num_heads
        self._head_dim = head_dim
        self.width = 2 * num_heads * head_dim
        empty = torch.zeros(0, 0, self.width, dtype=dtype, device=device)
        self._layers = [empty] * num_layers
        self._views: list[tuple[Tensor, Tensor]] = []
        self._shape = (-1, -1)

    @property
    def num_rows(self) -> int:
        """N."""
        return self._layers[0].shape[0]

    @property
    def num_positions(self) -> int:
        """P."""
        return self._layers[0].shape[1]

    @property
    def num_bytes(self) -> int:
        """Bytes of all layers."""
        return sum(layer.nbytes for layer in self._layers)

    def reserve(self, num_rows: int, num_positions: int) -> None:
        """Make room; capacities double, so growth costs little over a row's life."""
        N, P = self.num_rows, self.num_positions
        if num_rows <= N and num_positions <= P:
            return
        if num_rows > N:
            N = max(round_up(num_rows, _ROW_BUCKET), 2 * N)
        if num_positions > P:
            P = max(round_up(num_positions, _POSITION_BUCKET), 2 * P)
        for i, old in enumerate(self._layers):
            grown = old.new_zeros(N, P, self.width)
            grown[: old.shape[0], : old.shape[1]] = old
            self._layers[i] = grown
        self._shape = (-1, -1)

    def write(self, layer: int, places: Tensor, kv: Tensor) -> None:
        """Store ``kv`` (T, 2*I) at flat places (T,) int64, each ``row * P + position``."""
        self._layers[layer].view(-1, self.width).index_copy_(0, places, kv)

    def views(self, layer: int, num_rows: int, num_positions: int) -> tuple[Tensor, Tensor]:
        """Keys and values (rows, heads, positions, head_dim) of the first rows and positions."""
        if self._shape != (num_rows, num_positions):
            self._shape = (num_rows, num_positions)
            h, d = self._num_heads, self._head_dim
            self._views = []
            for tensor in self._layers:
                kv = tensor[:num_rows, :num_positions].view(num_rows, num_positions, 2, h, d)
                self._views.append((kv[:, :, 0].transpose(1, 2), kv[:, :, 1].transpose(1, 2)))
        return self._views[layer]

    def move(self, source: int, target: int, num_positions: int) -> None:
        """Copy the first positions of row ``source`` over row ``target``."""
        for layer in self._layers:
            layer[target, :num_positions] = layer[source, :num_positions]

    def copy(self, sources: list[int], targets: list[int], num_positions: int) -> None:
        """Copy the first positions of rows ``sources`` over rows ``targets``, all at once."""
        read = torch.tensor(sources, device=self._layers[0].device)
        written = torch.tensor(targets, device=self._layers[0].device)
        for layer in self._layers:
            some = layer[:, :num_positions]
            some.index_copy_(0, written, some.index_select(0, read))

    def wipe(self, row: int) -> None:
        """Fill a row with zeros: values that are not finite must not survive their row."""
        for layer in self._layers:
            layer[row].zero_()

    def release(self) -> None:
        """Give all memory back; the slab is as new."""
        self._layers = [layer.new_zeros(0, 0, self.width) for layer in self._layers]
        self._views, self._shape = [], (-1, -1)
