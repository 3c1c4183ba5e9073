"""The keys and values of a decode batch: slabs by size class, so a long row pads no short one.

A row lives in the slab of the smallest class that holds its positions and moves on when it
outgrows it. Attention runs once a slab.

Shapes: ``n`` rows of a slab, ``T`` tokens, ``W`` keys and values of a position.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from serving.engine.kv import KvShape, Slab, round_up
from serving.engine.kv_budget import KvBudget
from serving.engine.row import Row
from serving.engine.transformer.sight import Sight

_SMALLEST_CLASS = 64
_LENGTH_BUCKET = 16


def class_of(num_positions: int) -> int:
    """Positions of the smallest size class that holds that many: 64, 128, 256, ..."""
    return max(_SMALLEST_CLASS, 1 << (num_positions - 1).bit_length())


@dataclass(slots=True)
class Group:
    """The rows of one slab in one step.

    ``index`` (n,) says which rows of the batch they are, None where they are the whole batch in
    order; attention reads ``length`` positions under ``masks`` (self) or ``cross_mask``.
    """

    slab: Slab
    index: Tensor | None
    length: int = 0
    places: Tensor | None = None
    masks: dict[Sight, Tensor] = field(default_factory=dict)
    cross_mask: Tensor | None = None

    @property
    def num_rows(self) -> int:
        """n."""
        return len(self.slab.rows)

    def pick(self, x: Tensor) -> Tensor:
        """The group's rows of a tensor over the batch."""
        return x if self.index is None else x.index_select(0, self.index)

    def read(self, length: int) -> None:
        """Note how many positions the longest row has."""
        self.length = min(round_up(length, _LENGTH_BUCKET), self.slab.num_positions)


class KvStore:
    """Slabs of one attention, self or cross, of a stack."""

    def __init__(self, shape: KvShape, budget: KvBudget) -> None:
        self._shape = shape
        self._budget = budget
        budget.add(self)
        self._slabs: dict[int, Slab] = {}
        self._homes: dict[Row, Slab] = {}
        self._groups: list[Group] | None = None

    @property
    def slabs(self) -> Collection[Slab]:
        """The slabs of the classes that rows are in."""
        return self._slabs.values()

    def bytes_for(self, num_positions: int) -> int:
        """Bytes of the place of a row of that many positions."""
        return class_of(num_positions) * self._shape.position_bytes

    def growth_bytes(self, row: Row, num_positions: int) -> int:
        """Bytes of the larger place that ``row`` needs for that many positions, 0 where none."""
        if num_positions <= self._homes[row].num_positions:
            return 0
        return self.bytes_for(num_positions)

    def add(self, row: Row, num_positions: int) -> None:
        """Give ``row`` a place for that many positions."""
        slab = self._slab(class_of(num_positions))
        slab.add(row, self._budget)
        self._homes[row] = slab
        self._groups = None

    def remove(
        self, row: Row, length_of: Callable[[Row], int], *, is_poisoned: bool = False
    ) -> None:
        """Free the place of ``row``; ``length_of`` gives the positions in use of another row."""
        slab = self._homes.pop(row)
        slab.remove(row, length_of(slab.rows[-1]), is_poisoned=is_poisoned)
        if not slab.rows:
            del self._slabs[slab.num_positions]
        self._groups = None

    def fit(self, row: Row, num_positions: int, length_of: Callable[[Row], int]) -> None:
        """Move ``row`` to a larger class where that many positions need one."""
        old = self._homes[row]
        if num_positions <= old.num_positions:
            return
        new = self._slab(class_of(num_positions))
        new.add(row, self._budget)
        old.copy_row(row, new, old.num_positions)
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
        slab.copy([slab.rows.index(row)] * len(copies), targets, num_positions)
        self._groups = None

    def reorder(self, rows: Sequence[Row], parents: Sequence[int], num_positions: int) -> None:
        """Let each of ``rows``, all of one slab, go on from what ``rows[parent]`` holds."""
        slab = self._homes[rows[0]]
        places = [slab.rows.index(row) for row in rows]
        moves = [(places[p], place) for place, p in zip(places, parents) if places[p] != place]
        if moves:
            slab.copy([source for source, _ in moves], [to for _, to in moves], num_positions)

    def write(self, rows: Sequence[tuple[Row, int, int]], layers: Sequence[Tensor]) -> None:
        """Store keys and values of packed runs; ``layers`` has one tensor (T, W) a layer.

        ``rows`` are (row, first position, number of tokens), in the order of the tokens.
        """
        device = self._shape.device
        by_slab: dict[int, tuple[list[Tensor], list[Tensor]]] = {}
        start = 0
        for row, position, length in rows:
            slab = self._homes[row]
            first = slab.rows.index(row) * slab.num_positions + position
            tokens, places = by_slab.setdefault(slab.num_positions, ([], []))
            tokens.append(torch.arange(start, start + length, device=device))
            places.append(torch.arange(first, first + length, device=device))
            start += length
        for num_positions, (tokens, places) in by_slab.items():
            slab = self._slabs[num_positions]
            at = torch.cat(places)
            chosen = None if len(by_slab) == 1 else torch.cat(tokens)
            for layer, kv in enumerate(layers):
                slab.write(layer, at, kv if chosen is None else kv.index_select(0, chosen))

    def groups(self, rows: Sequence[Row]) -> list[Group]:
        """The slabs' rows as parts of the batch ``rows``; the same objects until a row moves."""
        if self._groups is None:
            number = {row: i for i, row in enumerate(rows)}
            self._groups = []
            for slab in self._slabs.values():
                order = [number[row] for row in slab.rows]
                is_whole = order == list(range(len(rows)))
                index = None if is_whole else torch.tensor(order, device=self._shape.device)
                self._groups.append(Group(slab, index))
        return self._groups

    def _slab(self, num_positions: int) -> Slab:
        if num_positions not in self._slabs:
            self._slabs[num_positions] = Slab(self._shape, num_positions)
        return self._slabs[num_positions]
