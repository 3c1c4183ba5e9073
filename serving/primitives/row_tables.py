"""The low-rank products of a decode batch by torch's operators: tables of factors in row order.

Each packed site keeps one table per rank bucket, so a rank-4 row does not pay for a rank-64 mate.

Shapes: ``R`` rows, ``D`` input width, ``E`` packed output width.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Hashable, Iterator, Mapping, Sequence

import torch
from torch import Tensor

from serving.primitives.factors import Factors
from serving.primitives.layout import PackedSite
from serving.primitives.low_rank import RowTable

_RANK_BUCKETS = (8, 32, 128)


class RowTables:
    """Tables by packed site; ``active`` are the sites that decode steps run."""

    def __init__(
        self,
        sites: Sequence[PackedSite],
        active: Collection[int],
        dtype: torch.dtype,
        device: torch.device,
        max_rows: int,
    ) -> None:
        self._sites, self._active = sites, active
        self._dtype, self._device = dtype, device
        self._tables: dict[int, dict[int, RowTable]] = {}

    @property
    def is_empty(self) -> bool:
        """True where no row has a product."""
        return not self._tables

    @property
    def num_bytes(self) -> int:
        """Bytes of all tables."""
        return sum(table.num_bytes for table in self._all())

    @property
    def shape(self) -> Hashable | None:
        """A step over tables that grow and move cannot be recorded."""
        return None if self._tables else ()

    def join(self, row: int, factors: Mapping[int, Factors]) -> None:
        """Copy the factors of batch row ``row`` in."""
        for index, own in factors.items():
            if index not in self._active:
                continue
            bucket = bisect_left(_RANK_BUCKETS, own.rank)
            tables = self._tables.setdefault(index, {})
            if bucket not in tables:
                tables[bucket] = RowTable(self._sites[index], self._dtype, self._device)
            tables[bucket].join(row, own)

    def leave(self, row: int, last: int) -> None:
        """Drop batch row ``row``; batch row ``last`` takes its number."""
        for table in self._all():
            table.leave(row, last)
        kept = {
            index: {bucket: table for bucket, table in tables.items() if table.rows}
            for index, tables in self._tables.items()
        }
        self._tables = {index: tables for index, tables in kept.items() if tables}

    def touch(self) -> None:
        """Note that the batch changed around the rows."""
        for table in self._all():
            table.touch()

    def refresh(self) -> None:
        """Nothing to do: tables are written when a row joins."""

    def apply(self, index: int, x_RD: Tensor, y_RE: Tensor) -> None:
        """Add every row's product at packed site ``index`` to ``y_RE`` in place."""
        tables = self._tables.get(index)
        if tables is not None:
            for table in tables.values():
                table.apply(x_RD, y_RE)

    def _all(self) -> Iterator[RowTable]:
        for tables in self._tables.values():
            yield from tables.values()
