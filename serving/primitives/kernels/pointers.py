"""The low-rank products of a decode batch by kernels: a table of addresses, a column a row.

A row that joins copies no factor; the table keeps the factors alive until the row leaves. It lies
at one address for good, and a column of zeros stands for a row without products, so a recorded step
goes on to hold as rows come and go.

Shapes: ``S`` packed sites of decode steps, ``R`` rows at most, ``D``/``E`` in/out width.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Mapping, Sequence

import torch
from torch import Tensor

from serving.primitives.factors import Factors
from serving.primitives.kernels.fields import MAX_RANK, NO_FIELDS, NUM_FIELDS, block_of, fields_of
from serving.primitives.kernels.rows import add_rows
from serving.primitives.layout import PackedSite
from serving.primitives.row_tables import RowTables
from serving.upload import can_pin

_RANK = 2


class PointerTable:
    """``max_rows`` rows at the ``active`` sites; ranks above the kernels' run by torch."""

    def __init__(
        self,
        sites: Sequence[PackedSite],
        active: Collection[int],
        dtype: torch.dtype,
        device: torch.device,
        max_rows: int,
    ) -> None:
        self._sites = sites
        self._number = {index: i for i, index in enumerate(sorted(active))}
        shape = len(self._number), NUM_FIELDS, max_rows
        is_pinned = device.type == "cuda" and can_pin()
        self._host = torch.zeros(shape, dtype=torch.int64, device="cpu", pin_memory=is_pinned)
        self._table = torch.zeros(shape, dtype=torch.int64, device=device)
        self._held: list[Mapping[int, Factors]] = []
        self._is_stale = False
        self._blocks: dict[int, int] = {}
        self._wide = RowTables(sites, active, dtype, device, max_rows)

    @property
    def is_empty(self) -> bool:
        """True where no row has a product."""
        return self._wide.is_empty and not any(self._held)

    @property
    def num_bytes(self) -> int:
        """Bytes of the table and of copied factors; those that it points to have their owner."""
        return self._table.nbytes + self._wide.num_bytes

    @property
    def shape(self) -> Hashable | None:
        """The sites that have a product, and the kernels' block of ranks at each."""
        self.refresh()
        return tuple(sorted(self._blocks.items())) if self._wide.is_empty else None

    def join(self, row: int, factors: Mapping[int, Factors]) -> None:
        """Take the factors of batch row ``row``, which comes after all that are there."""
        assert row == len(self._held), (row, len(self._held))
        own = {i: f for i, f in factors.items() if i in self._number and f.rank <= MAX_RANK}
        self._held.append(own)
        if own:
            self._write(row, own)
        self._wide.join(row, {i: f for i, f in factors.items() if f.rank > MAX_RANK})

    def leave(self, row: int, last: int) -> None:
        """Forget batch row ``row``; batch row ``last`` takes its number."""
        self._wide.leave(row, last)
        if self._held[row] or self._held[last]:
            self._host[:, :, row] = self._host[:, :, last]
            self._host[:, :, last] = 0
            self._is_stale = True
        self._held[row] = self._held[last]
        self._held.pop()

    def touch(self) -> None:
        """Note that the batch changed around the rows."""
        self._wide.touch()

    def refresh(self) -> None:
        """Copy the table to the device, where a row came or went."""
        if not self._is_stale:
            return
        self._is_stale = False
        self._table.copy_(self._host, non_blocking=True)
        ranks = self._host[:, _RANK].amax(dim=1).tolist()
        self._blocks = {i: block_of(ranks[n]) for i, n in self._number.items() if ranks[n]}

    def apply(self, index: int, x_RD: Tensor, y_RE: Tensor) -> None:
        """Add every row's product at packed site ``index`` to ``y_RE`` in place."""
        self.refresh()
        block = self._blocks.get(index)
        if block is not None:
            site, table = self._sites[index], self._table[self._number[index]]
            add_rows(x_RD, y_RE, table, site.num_members, site.member_width, block)
        self._wide.apply(index, x_RD, y_RE)

    def _write(self, row: int, own: Mapping[int, Factors]) -> None:
        columns = [
            NO_FIELDS if index not in own else fields_of(own[index]) for index in self._number
        ]
        self._host[:, :, row] = torch.tensor(columns, dtype=torch.int64, device="cpu")
        self._is_stale = True
