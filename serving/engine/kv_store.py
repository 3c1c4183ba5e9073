"""The keys and values of a decode batch: slabs by size class, so a long row pads no short one.

A row lives in the slab of the smallest class that holds its positions and moves on when it
outgrows it. Attention runs once a slab. Callers count a row's positions from its first prompt row
or token; the rows of a prefix lie in front of them.

Shapes: ``n`` rows of a slab, ``T`` tokens, ``W`` keys and values of a position.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from serving.engine.fronts import Fronts, fronts_of
from serving.engine.kv import KvShape, Slab, round_up
from serving.engine.kv_budget import KvBudget
from serving.engine.kv_transposed import TransposedSlab
from serving.engine.offsets import Offsets
from serving.engine.row import Row
from serving.primitives.prefix import Prefix
from serving.upload import upload

_SMALLEST_CLASS = 64
_LENGTH_BUCKET = 16


def class_of(num_positions: int) -> int:
    """Positions of the smallest size class that holds that many: 64, 128, 256, ..."""
    return max(_SMALLEST_CLASS, 1 << (num_positions - 1).bit_length())


class Run(NamedTuple):
    """Packed tokens of one row, which stand first in its place."""

    row: Row
    start: int
    length: int


@dataclass(slots=True)
class Group:
    """The rows of one slab in one step.

    ``index`` (n,) says which rows of the batch they are, None where they are the whole batch in
    order; attention reads ``length`` columns under the ``masks`` of the layers, and writes at
    ``places``. ``fronts`` are the rows of prefixes, None where no row has any.
    """

    slab: Slab
    index: Tensor | None
    length: int = 0
    places: Tensor | None = None
    masks: list[Tensor] = field(default_factory=list)
    fronts: Fronts | None = None

    @property
    def num_rows(self) -> int:
        """n."""
        return len(self.slab.rows)

    def pick(self, x: Tensor) -> Tensor:
        """The group's rows of a tensor over the batch."""
        return x if self.index is None else x.index_select(0, self.index)

    def read(self, length: int) -> None:
        """Note how many columns the longest row has."""
        self.length = min(round_up(length, _LENGTH_BUCKET), self.slab.num_positions)


class KvStore:
    """Slabs of one attention, self or cross, of a stack; ``offsets_of`` names its prefixes."""

    def __init__(
        self, shape: KvShape, budget: KvBudget, offsets_of: Callable[[Row], Offsets]
    ) -> None:
        self._shape = shape
        self._budget = budget
        self._offsets_of = offsets_of
        budget.add(self)
        self._slabs: dict[int, Slab] = {}
        self._homes: dict[Row, Slab] = {}
        self._groups: list[Group] | None = None

    @property
    def slabs(self) -> Collection[Slab]:
        """The slabs of the classes that rows are in."""
        return self._slabs.values()

    def bytes_for(self, row: Row, num_positions: int) -> int:
        """Bytes of the place of ``row`` when it has that many positions."""
        return class_of(self._num_columns(row, num_positions)) * self._shape.position_bytes

    def growth_bytes(self, row: Row, num_positions: int) -> int:
        """Bytes of the larger place that ``row`` needs for that many positions, 0 where none."""
        if self._num_columns(row, num_positions) <= self._homes[row].num_positions:
            return 0
        return self.bytes_for(row, num_positions)

    def add(self, row: Row, num_positions: int) -> None:
        """Give ``row`` a place for that many positions."""
        slab = self._slab(class_of(self._num_columns(row, num_positions)))
        slab.add(row, self._budget)
        self._homes[row] = slab
        self._groups = None

    def put_front(self, row: Row, prefix: Prefix) -> None:
        """Store a prefix in front of a row: of every layer what it has, next to the row's keys."""
        slab = self._homes[row]
        stop = slab.rows.index(row) * slab.num_positions + prefix.num_rows
        for layer, rows in prefix.rows.items():
            places = torch.arange(stop - rows.shape[0], stop, device=self._shape.device)
            slab.write(layer, places, rows)

    def remove(
        self, row: Row, length_of: Callable[[Row], int], *, is_poisoned: bool = False
    ) -> None:
        """Free the place of ``row``; ``length_of`` gives the positions in use of another row."""
        slab = self._homes.pop(row)
        last = slab.rows[-1]
        num_last = self._num_columns(last, length_of(last))
        slab.remove(row, num_last, is_poisoned=is_poisoned)
        if not slab.rows:
            del self._slabs[slab.num_positions]
        self._groups = None

    def fit(self, row: Row, num_positions: int, length_of: Callable[[Row], int]) -> None:
        """Move ``row`` to a larger class where that many positions need one."""
        old, num_columns = self._homes[row], self._num_columns(row, num_positions)
        if num_columns <= old.num_positions:
            return
        new = self._slab(class_of(num_columns))
        new.add(row, self._budget)
        old.copy_row(row, new, old.num_positions, row)
        self.remove(row, length_of)
        self._homes[row] = new

    def fork(self, row: Row, copies: Sequence[Row], num_positions: int) -> None:
        """Give each of ``copies`` a place with what the first positions of ``row`` hold."""
        slab = self._homes[row]
        first = len(slab.rows)
        for one in copies:
            slab.add(one, self._budget)
            self._homes[one] = slab
        targets = list(range(first, len(slab.rows)))
        num_columns = self._num_columns(row, num_positions)
        slab.copy([slab.rows.index(row)] * len(copies), targets, num_columns)
        self._groups = None

    def reorder(self, rows: Sequence[Row], parents: Sequence[int], num_positions: int) -> None:
        """Let each of ``rows``, all of one slab, go on from what ``rows[parent]`` holds."""
        slab = self._homes[rows[0]]
        places = [slab.rows.index(row) for row in rows]
        moves = [(places[p], place) for place, p in zip(places, parents) if places[p] != place]
        if moves:
            num_columns = self._num_columns(rows[0], num_positions)
            slab.copy([source for source, _ in moves], [to for _, to in moves], num_columns)

    def write(self, runs: Sequence[Run], layers: Sequence[Tensor]) -> None:
        """Store packed keys and values; ``layers`` has one tensor (T, W) a layer.

        Rows that share an input have the same tokens; all others' follow each other.
        """
        device = self._shape.device
        by_slab: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
        for row, start, length in runs:
            slab = self._homes[row]
            first = slab.rows.index(row) * slab.num_positions + self._num_columns(row, 0)
            tokens, places = by_slab.setdefault(slab.num_positions, ([], []))
            tokens.append(torch.arange(start, start + length, device=device))
            places.append(torch.arange(first, first + length, device=device))
        is_all = len(by_slab) == 1 and sum(run.length for run in runs) == layers[0].shape[0]
        for num_positions, (tokens, places) in by_slab.items():
            slab = self._slabs[num_positions]
            at = torch.cat(places)
            chosen = None if is_all else torch.cat(tokens)
            for layer, kv in enumerate(layers):
                slab.write(layer, at, kv if chosen is None else kv.index_select(0, chosen))

    def copy(self, row: Row, other: Row, num_positions: int) -> None:
        """Let ``other`` hold what the first positions of ``row`` hold, prefix included."""
        num_columns = self._num_columns(row, num_positions)
        self._homes[row].copy_row(row, self._homes[other], num_columns, other)

    def keys_of(self, row: Row, layer: int, num_positions: int) -> tuple[Tensor, Tensor]:
        """Keys and values (1, k, C, d) of one row at a layer, a prefix's rows in front."""
        slab, offsets = self._homes[row], self._offsets_of(row)
        place, stop = slab.rows.index(row), self._num_columns(row, num_positions)
        start = offsets.num_front - offsets.front(layer).num_rows
        key, value = slab.views(layer, len(slab.rows), slab.num_positions)
        columns = slice(start, stop)
        return key[place : place + 1, :, columns], value[place : place + 1, :, columns]

    def groups(self, rows: Sequence[Row]) -> list[Group]:
        """The slabs' rows as parts of the batch ``rows``; the same objects until a row moves."""
        if self._groups is None:
            number = {row: i for i, row in enumerate(rows)}
            self._groups = []
            for slab in self._slabs.values():
                order = [number[row] for row in slab.rows]
                is_whole = order == list(range(len(rows)))
                index = None if is_whole else upload(order, self._shape.device)
                offsets = [self._offsets_of(row) for row in slab.rows]
                fronts = fronts_of(offsets, self._shape.num_layers, self._shape.device)
                self._groups.append(Group(slab, index, fronts=fronts))
        return self._groups

    def _num_columns(self, row: Row, num_positions: int) -> int:
        return self._offsets_of(row).num_front + num_positions

    def _slab(self, num_positions: int) -> Slab:
        if num_positions not in self._slabs:
            kind = TransposedSlab if self._shape.transposes_keys else Slab
            self._slabs[num_positions] = kind(self._shape, num_positions)
        return self._slabs[num_positions]
