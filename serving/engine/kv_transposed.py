"""Slabs for attention on the CPU: each layer's keys lie transposed, so positions are contiguous.

A query's scores are then a weighted sum of contiguous rows, as its context is, and neither packs a
matrix for a single query.

Shapes: ``N`` row capacity, ``P`` positions of every row, ``k`` key-value heads, ``d`` head width,
``n`` rows of a step, ``C`` columns that they read, ``T`` tokens.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from adapters_store.families.architecture import Stack as StackRecord
from serving.engine.kv import KvShape, Slab
from serving.engine.transformer.attention import Tables, table_attention
from serving.primitives.bags import Bags


class TransposedSlab(Slab):
    """Keys (N, k, d, P) and values (N, k, P, d) of a layer; ``_layers`` has them in turn."""

    def __init__(self, shape: KvShape, num_positions: int) -> None:
        super().__init__(shape, num_positions)
        k, d, P = shape.num_heads, shape.head_dim, num_positions
        empty = torch.zeros(0, k * d * P, dtype=shape.dtype, device=shape.device)
        self._layers = [empty.view(0, k, d, P), empty.view(0, k, P, d)] * shape.num_layers
        self._written: tuple[Tensor, tuple[Tensor, Tensor]] | None = None
        self._bags: tuple[tuple[int, int], Bags, Bags] | None = None

    def write(self, layer: int, places: Tensor, kv_TW: Tensor) -> None:
        """Store keys and values at flat places (T,) int64, each ``row * P + position``."""
        if self._written is None or self._written[0] is not places:
            P = self.num_positions
            self._written = places, (places.div(P, rounding_mode="floor"), places.remainder(P))
        at = self._written[1]
        k_Tkd, v_Tkd = kv_TW.view(kv_TW.shape[0], 2, -1, self._shape.head_dim).unbind(1)
        self._keys(layer).permute(0, 3, 1, 2).index_put_(at, k_Tkd)
        self._values(layer).permute(0, 2, 1, 3).index_put_(at, v_Tkd)

    def views(self, layer: int, num_rows: int, num_positions: int) -> tuple[Tensor, Tensor]:
        """Keys and values (rows, k, positions, d) of the first rows and positions."""
        keys = self._keys(layer)[:num_rows, :, :, :num_positions].transpose(2, 3)
        return keys, self._values(layer)[:num_rows, :, :num_positions]

    def attend(
        self,
        record: StackRecord,
        layer: int,
        q_nI: Tensor,
        num_positions: int,
        mask: Tensor | None,
    ) -> Tensor:
        """Context (n, h*d) of the first rows over their first positions."""
        key_bags, value_bags = self._sums(q_nI.shape[0], num_positions, record.num_heads)
        keys = self._keys(layer).view(-1, self.num_positions)[:, :num_positions]
        values = self._values(layer).view(-1, self._shape.head_dim)
        return table_attention(record, q_nI, Tables(keys, values, key_bags, value_bags), mask)

    def _keys(self, layer: int) -> Tensor:
        return self._layers[2 * layer]

    def _values(self, layer: int) -> Tensor:
        return self._layers[2 * layer + 1]

    def _first(self, num_positions: int) -> Iterator[Tensor]:
        for layer in range(self._shape.num_layers):
            yield from self.views(layer, self.capacity, num_positions)

    def _sums(self, num_rows: int, num_positions: int, num_queries: int) -> tuple[Bags, Bags]:
        """What the queries of the rows sum; the same until rows or columns are more or fewer."""
        wanted = (num_rows, num_positions)
        if self._bags is None or self._bags[0] != wanted:
            k, d, device = self._shape.num_heads, self._shape.head_dim, self._shape.device
            heads = torch.arange(num_rows * k, device=device).repeat_interleave(num_queries // k)
            widths, columns = (torch.arange(n, device=device) for n in (d, num_positions))
            self._bags = (
                wanted,
                Bags(heads.unsqueeze(1) * d + widths),
                Bags(heads.unsqueeze(1) * self.num_positions + columns),
            )
        return self._bags[1:]
