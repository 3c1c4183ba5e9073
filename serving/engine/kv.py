"""Key/value slabs: the rows of one size class, side by side, one tensor a layer.

Row ``i`` of a slab is its ``i``-th row; the last row moves into the place of one that leaves.
What lies beyond a row's length is finite and masked.

Shapes: ``N`` row capacity, ``P`` positions of every row, ``k`` key-value heads, ``d`` head width,
``W`` = 2 * k * d.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from adapters_store.families.architecture import Stack as StackRecord
from serving.engine.kv_budget import KvBudget
from serving.engine.row import Row
from serving.engine.transformer.attention import slab_attention
from serving.upload import upload

_MAX_SPARE = 8


def round_up(value: int, multiple: int) -> int:
    """The smallest multiple of ``multiple`` that is at least ``value``."""
    return -(-value // multiple) * multiple


@dataclass(frozen=True, slots=True)
class KvShape:
    """Keys and values of one position in all layers of a stack.

    ``transposes_keys`` says that slabs keep keys transposed, as attention on the CPU wants them.
    """

    num_layers: int
    num_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device
    transposes_keys: bool = False

    @property
    def width(self) -> int:
        """W, in elements."""
        return 2 * self.num_heads * self.head_dim

    @property
    def position_bytes(self) -> int:
        """Bytes of one position in all layers."""
        return self.num_layers * self.width * self.dtype.itemsize


class Slab:
    """Keys and values of rows of up to P positions: per layer a tensor (N, P, W), keys first."""

    def __init__(self, shape: KvShape, num_positions: int) -> None:
        self._shape = shape
        self.num_positions = num_positions
        self.rows: list[Row] = []
        empty = torch.zeros(0, num_positions, shape.width, dtype=shape.dtype, device=shape.device)
        self._layers = [empty] * shape.num_layers
        self._views: list[tuple[Tensor, Tensor]] = []
        self._viewed = (-1, -1)
        self._addresses: list[int] = []

    @property
    def addresses(self) -> list[int]:
        """Where each layer begins; it stays there until the slab is resized."""
        if not self._addresses:
            self._addresses = [layer.data_ptr() for layer in self._layers]
        return self._addresses

    @property
    def capacity(self) -> int:
        """N."""
        return self._layers[0].shape[0]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in all layers."""
        return self.num_positions * self._shape.position_bytes

    @property
    def num_bytes(self) -> int:
        """Bytes of all layers."""
        return self.capacity * self.row_bytes

    @property
    def layer_bytes(self) -> int:
        """Bytes of one layer, which is there twice while the slab is resized."""
        return self._layers[0].nbytes

    def add(self, row: Row, budget: KvBudget) -> None:
        """Give ``row`` the next place; a full slab grows as ``budget`` says."""
        if len(self.rows) == self.capacity:
            self.resize(budget.grown(self))
        self.rows.append(row)

    def remove(self, row: Row, num_last: int, *, is_poisoned: bool) -> None:
        """Free the place of ``row``; the last row, of ``num_last`` positions, moves there.

        ``is_poisoned`` wipes it and the spare places, where moves earlier in the step may have
        left a copy: values that are not finite must not survive their row.
        """
        index, last = self.rows.index(row), len(self.rows) - 1
        if is_poisoned:
            for layer in self._layers:
                layer[index].zero_()
        if index != last:
            for some in self._first(num_last):
                some[index] = some[last]
            self.rows[index] = self.rows[last]
        self.rows.pop()
        if is_poisoned:
            for layer in self._layers:
                layer[len(self.rows) :].zero_()
        if self.capacity > 2 * len(self.rows) + _MAX_SPARE:
            self.resize(len(self.rows) + _MAX_SPARE)

    def resize(self, capacity: int) -> None:
        """Make room for that many rows, at least those that are there, and for no more.

        Layers are copied one after the other, so that no more than one is there twice.
        """
        self._views, self._viewed, self._addresses = [], (-1, -1), []
        for i, old in enumerate(self._layers):
            grown = old.new_zeros(capacity, *old.shape[1:])
            grown[: len(self.rows)] = old[: len(self.rows)]
            self._layers[i] = grown

    def write(self, layer: int, places: Tensor, kv_TW: Tensor) -> None:
        """Store keys and values at flat places (T,) int64, each ``row * P + position``."""
        self._layers[layer].view(-1, self._shape.width).index_copy_(0, places, kv_TW)

    def views(self, layer: int, num_rows: int, num_positions: int) -> tuple[Tensor, Tensor]:
        """Keys and values (rows, k, positions, d) of the first rows and positions."""
        if self._viewed != (num_rows, num_positions):
            self._viewed = (num_rows, num_positions)
            h, d = self._shape.num_heads, self._shape.head_dim
            self._views = []
            for tensor in self._layers:
                kv = tensor[:num_rows, :num_positions].view(num_rows, num_positions, 2, h, d)
                self._views.append((kv[:, :, 0].transpose(1, 2), kv[:, :, 1].transpose(1, 2)))
        return self._views[layer]

    def attend(
        self,
        record: StackRecord,
        layer: int,
        q_nI: Tensor,
        num_positions: int,
        mask: Tensor | None,
    ) -> Tensor:
        """Context (n, h*d) of the first rows over their first positions."""
        k, v = self.views(layer, q_nI.shape[0], num_positions)
        return slab_attention(record, q_nI, k, v, mask)

    def copy(self, sources: list[int], targets: list[int], num_positions: int) -> None:
        """Copy the first positions of rows ``sources`` over rows ``targets``, all at once."""
        read = upload(sources, self._shape.device)
        written = upload(targets, self._shape.device)
        for some in self._first(num_positions):
            some.index_copy_(0, written, some.index_select(0, read))

    def copy_row(self, row: Row, target: Slab, num_positions: int, other: Row) -> None:
        """Copy the first positions of ``row`` to the place of ``other`` in ``target``."""
        source, place = self.rows.index(row), target.rows.index(other)
        own, others = self._first(num_positions), target._first(num_positions)
        for old, new in zip(own, others, strict=True):
            new[place] = old[source]

    def _first(self, num_positions: int) -> Iterator[Tensor]:
        """The first positions of every row in all tensors."""
        for layer in self._layers:
            yield layer[:, :num_positions]
