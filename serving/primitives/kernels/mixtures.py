"""The rows of a decode batch that share one bank, by kernels: weights at one address for good.

Shapes: ``R`` rows at most, ``S`` sites of the bank, ``H`` heads, ``K`` skills, ``m`` adapted
members of a packed site.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from itertools import count

import torch
from torch import Tensor

from serving.primitives.kernels.bank import add_bank
from serving.primitives.kernels.fields import MAX_RANK, block_of
from serving.primitives.layout import PackedSite
from serving.primitives.mixture import Bank, BankSite, BankTable, Mixture
from serving.primitives.rows import RowOrder
from serving.upload import upload

_numbers = count()


class StaticBankTable:
    """Up to ``max_rows`` rows of one bank; places without a row say so by -1."""

    def __init__(self, bank: Bank, max_rows: int) -> None:
        self.bank = bank
        self._number = next(_numbers)
        device = next(s.a.device for group in bank.sites.values() for s in group)
        self._order = RowOrder(device)
        self._weights: list[Tensor] = []
        self._rows = torch.full((max_rows,), -1, dtype=torch.int64, device=device)
        self._by_site: dict[int, list[tuple[BankSite, Tensor, Tensor]]] = {
            index: [
                (
                    site,
                    upload(site.order, device),
                    torch.zeros(
                        max_rows,
                        len(site.members),
                        site.num_heads,
                        site.num_skills,
                        dtype=torch.float32,
                        device=device,
                    ),
                )
                for site in group
            ]
            for index, group in bank.sites.items()
        }
        self._is_stale = False

    @property
    def rows(self) -> list[int]:
        """The batch rows held, in the order of their entries."""
        return self._order.rows

    @property
    def num_bytes(self) -> int:
        """Bytes of the places for routing weights."""
        return sum(w.nbytes for group in self._by_site.values() for *_, w in group)

    @property
    def shape(self) -> Hashable:
        """The table itself: its memory stays where it is as long as it lives."""
        return self._number

    def join(self, row: int, mixture: Mixture) -> None:
        """Append batch row ``row`` with its routing."""
        self._order.join(row)
        self._weights.append(mixture.weights)
        self._is_stale = True

    def leave(self, row: int, last: int) -> None:
        """Forget batch row ``row``; batch row ``last`` is renamed to ``row`` by compaction."""
        if row in self.rows:
            self._weights[self.rows.index(row)] = self._weights[-1]
            self._weights.pop()
        self._order.leave(row, last)
        self._is_stale = True

    def touch(self) -> None:
        """Note that the batch changed around the table's rows: their numbers stay."""

    def refresh(self) -> None:
        """Copy rows and weights to their places, where a row came or went."""
        if not self._is_stale:
            return
        self._is_stale = False
        n = len(self.rows)
        self._rows.fill_(-1)
        if not n:
            return
        self._rows[:n] = upload(self.rows, self._rows.device)
        weights_nSHK = torch.stack(self._weights)
        for group in self._by_site.values():
            for _, order, weights in group:
                weights[:n] = weights_nSHK.index_select(1, order)

    def apply(self, index: int, x_RD: Tensor, y_RE: Tensor) -> None:
        """Add the rows' mixtures at packed site ``index`` to ``y_RE`` in place."""
        self.refresh()
        num_rows = x_RD.shape[0]
        for site, _, weights in self._by_site.get(index, ()):
            rows, w, block = self._rows[:num_rows], weights[:num_rows], block_of(site.rank)
            add_bank(x_RD, y_RE, rows, w, site.a, site.b, site.members, block)


def mixtures_of(
    bank: Bank, sites: Sequence[PackedSite], max_rows: int
) -> StaticBankTable | BankTable:
    """The table of a bank; torch's where a rank is above the kernels'."""
    if any(site.rank > MAX_RANK for group in bank.sites.values() for site in group):
        return BankTable(bank, sites)
    return StaticBankTable(bank, max_rows)
