"""Which rows of a step an effect concerns, and tables that keep one entry for each of them.

An effect runs over *entries*: pairs of a :class:`Rows` and the tensors of those rows. In prefill an
entry is a contiguous run of tokens of one adapter; in decode it is all concerned rows together,
their tensors kept in row order by :class:`Stacked`, which is touched only when the batch changes.

Shapes: ``T`` tokens of a prefill step or ``R`` rows of a decode batch, ``n`` rows concerned.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from serving.upload import upload


class Rows(Protocol):
    """Some rows of a (T, ...) tensor."""

    def take(self, x: Tensor) -> Tensor:
        """Those rows of ``x``, (n, ...); a view or a copy."""

    def put(self, y: Tensor, part: Tensor) -> None:
        """Write ``part`` over those rows of ``y``."""

    def add(self, y: Tensor, part: Tensor) -> None:
        """Add ``part`` to those rows of ``y`` in place."""


@dataclass(frozen=True, slots=True)
class Run:
    """The contiguous rows from ``start`` up to, not including, ``stop``."""

    start: int
    stop: int

    def take(self, x: Tensor) -> Tensor:
        return x[self.start : self.stop]

    def put(self, y: Tensor, part: Tensor) -> None:
        y[self.start : self.stop] = part

    def add(self, y: Tensor, part: Tensor) -> None:
        y[self.start : self.stop] += part


@dataclass(frozen=True, slots=True)
class Picked:
    """The rows of an index (n,) int64."""

    index: Tensor

    def take(self, x: Tensor) -> Tensor:
        return x.index_select(0, self.index)

    def put(self, y: Tensor, part: Tensor) -> None:
        y.index_copy_(0, self.index, part)

    def add(self, y: Tensor, part: Tensor) -> None:
        y.index_add_(0, self.index, part)


@dataclass(frozen=True, slots=True)
class Whole:
    """Every row, in order."""

    def take(self, x: Tensor) -> Tensor:
        return x

    def put(self, y: Tensor, part: Tensor) -> None:
        y.copy_(part)

    def add(self, y: Tensor, part: Tensor) -> None:
        y += part


Entry = tuple[Rows, tuple[Tensor, ...]]


class Entries(Protocol):
    """The effects of one kind at one place."""

    def entries(self, x: Tensor) -> Sequence[Entry]:
        """Rows of ``x`` with their tensors; rows that are in no entry are left alone."""


def add_to_rows(y: Tensor, table: Entries) -> None:
    """Add to the concerned rows of ``y`` their own vectors in place."""
    for rows, (v,) in table.entries(y):
        rows.add(y, v)


class Runs:
    """Entries of a prefill step, one per run of tokens that share an adapter.

    Tensors have a leading dimension of 1, which stands for every token of the run.
    """

    def __init__(self) -> None:
        self._entries: list[Entry] = []

    def append(self, run: Run, tensors: Sequence[Tensor]) -> None:
        """Add a run with the tensors of its adapter."""
        self._entries.append((run, tuple(tensor.unsqueeze(0) for tensor in tensors)))

    def entries(self, x: Tensor) -> Sequence[Entry]:
        """One entry a run."""
        return self._entries


@lru_cache(maxsize=64)
def _picked(rows: tuple[int, ...], device: torch.device) -> Picked:
    """The rows as an index, one for all tables that hold the same: a plan has hundreds."""
    return Picked(upload(rows, device))


class RowOrder:
    """The batch rows that a table holds: entry ``i`` belongs to batch row ``rows[i]``."""

    def __init__(self, device: torch.device) -> None:
        self.rows: list[int] = []
        self._device = device
        self._cached: Rows | None = None

    def join(self, row: int) -> int:
        """Append batch row ``row``; its entry's position."""
        self._cached = None
        self.rows.append(row)
        return len(self.rows) - 1

    def leave(self, row: int, last: int) -> tuple[int, int] | None:
        """Forget batch row ``row``; batch row ``last`` is renamed to ``row`` by compaction.

        Returns (to, from) where the entry at position ``from`` has to move to position ``to``.
        """
        self._cached = None
        moved = None
        if row in self.rows:
            position, end = self.rows.index(row), len(self.rows) - 1
            if position != end:
                self.rows[position] = self.rows[end]
                moved = (position, end)
            self.rows.pop()
        if last != row and last in self.rows:
            self.rows[self.rows.index(last)] = row
        return moved

    def touch(self) -> None:
        """Note that the batch changed around the table's rows."""
        self._cached = None

    def within(self, num_rows: int) -> Rows:
        """The table's rows in a batch of ``num_rows``, built once per batch composition."""
        if self._cached is None:
            is_whole = self.rows == list(range(num_rows))
            self._cached = Whole() if is_whole else _picked(tuple(self.rows), self._device)
        return self._cached


class Stacked:
    """Tensors of a decode batch's rows, stacked in row order; entries of one.

    Every row brings the same number of tensors. A smaller tensor fills the leading corner and
    leaves zeros behind it; a larger one makes the table grow.
    """

    def __init__(self, dtype: torch.dtype, device: torch.device) -> None:
        self._dtype, self._device = dtype, device
        self._order = RowOrder(device)
        self._tensors: list[Tensor] = []
        self._entries: list[Entry] | None = None

    @property
    def rows(self) -> list[int]:
        """The batch rows held, in the order of their entries."""
        return self._order.rows

    @property
    def num_bytes(self) -> int:
        """Bytes of the preallocated buffers."""
        return sum(tensor.nbytes for tensor in self._tensors)

    def join(self, row: int, tensors: Sequence[Tensor]) -> None:
        """Append the tensors of batch row ``row``."""
        self._entries = None
        position = self._order.join(row)
        self._reserve(position, tensors)
        for table, tensor in zip(self._tensors, tensors, strict=True):
            entry = table[position]
            if entry.shape != tensor.shape:
                entry.zero_()
            entry[_corner(tensor.shape)] = tensor

    def leave(self, row: int, last: int) -> None:
        """Forget batch row ``row``; batch row ``last`` is renamed to ``row`` by compaction."""
        self._entries = None
        moved = self._order.leave(row, last)
        if moved is not None:
            for table in self._tensors:
                table[moved[0]] = table[moved[1]]
        if not self.rows:
            self._tensors = []

    def touch(self) -> None:
        """Note that the batch changed around the table's rows."""
        self._entries = None
        self._order.touch()

    def entries(self, x: Tensor) -> Sequence[Entry]:
        """All rows held as one entry."""
        if self._entries is None:
            n = len(self.rows)
            views = tuple(table[:n] for table in self._tensors)
            self._entries = [(self._order.within(x.shape[0]), views)]
        return self._entries

    def _reserve(self, position: int, tensors: Sequence[Tensor]) -> None:
        tables = self._tensors or [tensor.new_empty(0, *tensor.shape) for tensor in tensors]
        needed = [
            torch.Size(map(max, table.shape[1:], tensor.shape))
            for table, tensor in zip(tables, tensors, strict=True)
        ]
        capacity = tables[0].shape[0]
        if position == capacity:
            capacity = max(8, 2 * position)
        elif all(table.shape[1:] == shape for table, shape in zip(tables, needed, strict=True)):
            return
        grown = []
        for table, shape in zip(tables, needed, strict=True):
            new = torch.zeros(capacity, *shape, dtype=self._dtype, device=self._device)
            old = table[:position]
            new[_corner(old.shape)] = old
            grown.append(new)
        self._tensors = grown


def _corner(shape: torch.Size) -> tuple[slice, ...]:
    return tuple(slice(0, size) for size in shape)
