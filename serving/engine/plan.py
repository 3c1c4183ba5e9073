"""The decode plan: row-ordered factors of the running batch, touched when its rows change.

Each packed site keeps one table per rank bucket, so a rank-4 row does not pay for a rank-64 mate;
routed rows in the shared-bank form are kept per bank. Bare rows are in no table.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence

import torch
from torch import Tensor

from serving.primitives.layout import PackedSite
from serving.primitives.low_rank import RowTable
from serving.primitives.mixture import Bank, BankTable, is_shared_cheaper
from serving.primitives.prepared import Prepared

_RANK_BUCKETS = (8, 32, 128)


class DecodePlan:
    """What the adapters of the decode batch add at the decoder's sites.

    ``sites`` are all packed sites; ``active`` the indices that decode steps run.
    """

    def __init__(
        self,
        sites: Sequence[PackedSite],
        active: frozenset[int],
        dtype: torch.dtype,
        device: torch.device,
        form: str,
        balance: float,
    ) -> None:
        self._sites = sites
        self._active = active
        self._dtype, self._device = dtype, device
        self._form, self._balance = form, balance
        self._tables: dict[int, dict[int, RowTable]] = {}
        self._banks: dict[int, BankTable] = {}

    @property
    def is_empty(self) -> bool:
        """True for a wholly bare batch, which then pays nothing."""
        return not self._tables and not self._banks

    @property
    def num_bytes(self) -> int:
        """Bytes of all tables."""
        rows = sum(t.num_bytes for tables in self._tables.values() for t in tables.values())
        return rows + sum(bank.num_bytes for bank in self._banks.values())

    def join(self, row: int, prepared: Prepared, num_mates: int) -> None:
        """Add batch row ``row``; ``num_mates`` routed rows are expected to decode together."""
        self._touch()
        mixture = prepared.mixture
        shared: frozenset[int] = frozenset()
        if mixture is not None and self._wants_shared(mixture.bank, num_mates):
            shared = frozenset(mixture.bank.sites)
            key = id(mixture.bank)
            if key not in self._banks:
                self._banks[key] = BankTable(mixture.bank, self._sites)
            self._banks[key].join(row, mixture)
        for index, factors in prepared.factors.items():
            if index not in self._active or index in shared:
                continue
            bucket = bisect_left(_RANK_BUCKETS, factors.rank)
            tables = self._tables.setdefault(index, {})
            if bucket not in tables:
                tables[bucket] = RowTable(self._sites[index], self._dtype, self._device)
            tables[bucket].join(row, factors)

    def leave(self, row: int, last: int) -> None:
        """Drop batch row ``row``; batch row ``last`` takes its number."""
        for index, tables in list(self._tables.items()):
            for bucket, table in list(tables.items()):
                table.leave(row, last)
                if not table.rows:
                    del tables[bucket]
            if not tables:
                del self._tables[index]
        for key, bank in list(self._banks.items()):
            bank.leave(row, last)
            if not bank.rows:
                del self._banks[key]

    def apply(self, index: int, x_RD: Tensor, y_RE: Tensor) -> None:
        """Add every row's effect at packed site ``index`` to ``y_RE`` in place."""
        tables = self._tables.get(index)
        if tables is not None:
            for table in tables.values():
                table.apply(x_RD, y_RE)
        for bank in self._banks.values():
            bank.apply(index, x_RD, y_RE)

    def _wants_shared(self, bank: Bank, num_mates: int) -> bool:
        if self._form != "auto":
            return self._form == "shared"
        num_skills = max(s.num_skills for group in bank.sites.values() for s in group)
        return is_shared_cheaper(num_mates, num_skills, self._dtype.itemsize, self._balance)

    def _touch(self) -> None:
        for tables in self._tables.values():
            for table in tables.values():
                table.touch()
        for bank in self._banks.values():
            bank.touch()
