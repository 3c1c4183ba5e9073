"""The decode plan: row-ordered tensors of the running batch, touched when its rows change.

Each packed site keeps one table of factors per rank bucket, so a rank-4 row does not pay for a
rank-64 mate; routed rows in the shared-bank form are kept per bank. Bare rows are in no table.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from serving.primitives.layout import PackedSite
from serving.primitives.low_rank import RowTable
from serving.primitives.mixture import Bank, BankTable, is_shared_cheaper
from serving.primitives.plan import Plan, effects
from serving.primitives.prepared import Prepared
from serving.primitives.rows import Stacked

_RANK_BUCKETS = (8, 32, 128)

Place = TypeVar("Place")
Variant = TypeVar("Variant")
Table = TypeVar("Table", RowTable, Stacked)


class DecodePlan(Plan[Stacked]):
    """What the adapters of the decode batch do at the decoder's places.

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
        super().__init__(sites)
        self._active = active
        self._dtype, self._device = dtype, device
        self._form, self._balance = form, balance
        self._products: dict[int, dict[int, RowTable]] = {}
        self._banks: dict[int, BankTable] = {}

    @property
    def is_empty(self) -> bool:
        """True for a wholly bare batch, which then pays nothing."""
        return not (self._products or self._banks or any(self._tables.values()))

    @property
    def num_bytes(self) -> int:
        """Bytes of all tables."""
        return sum(table.num_bytes for table in self._all_tables())

    def join(self, row: int, prepared: Prepared, num_mates: int) -> None:
        """Add batch row ``row``; ``num_mates`` routed rows are expected to decode together."""
        for table in self._all_tables():
            table.touch()
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
            tables = self._products.setdefault(index, {})
            if bucket not in tables:
                tables[bucket] = RowTable(self._sites[index], self._dtype, self._device)
            tables[bucket].join(row, factors)
        for kind, place, variant, tensors in effects(self._sites, prepared):
            if self._is_active(place):
                stacks = self._tables[kind].setdefault(place, {})
                if variant not in stacks:
                    stacks[variant] = Stacked(self._dtype, self._device)
                stacks[variant].join(row, tensors)

    def leave(self, row: int, last: int) -> None:
        """Drop batch row ``row``; batch row ``last`` takes its number."""
        for table in self._all_tables():
            table.leave(row, last)
        self._products = _occupied(self._products)
        self._tables = {kind: _occupied(places) for kind, places in self._tables.items()}
        self._banks = {key: bank for key, bank in self._banks.items() if bank.rows}

    def _add_products(self, index: int, x_TD: Tensor, y_TE: Tensor) -> None:
        tables = self._products.get(index)
        if tables is not None:
            for table in tables.values():
                table.apply(x_TD, y_TE)
        for bank in self._banks.values():
            bank.apply(index, x_TD, y_TE)

    def _all_tables(self) -> Iterator[RowTable | BankTable | Stacked]:
        for tables in self._products.values():
            yield from tables.values()
        yield from self._banks.values()
        for by_place in self._tables.values():
            for stacks in by_place.values():
                yield from stacks.values()

    def _is_active(self, place: int | str) -> bool:
        return place in self._active if isinstance(place, int) else place.startswith("decoder.")

    def _wants_shared(self, bank: Bank, num_mates: int) -> bool:
        if self._form != "auto":
            return self._form == "shared"
        num_skills = max(s.num_skills for group in bank.sites.values() for s in group)
        return is_shared_cheaper(num_mates, num_skills, self._dtype.itemsize, self._balance)


def _occupied(
    by_place: Mapping[Place, Mapping[Variant, Table]],
) -> dict[Place, dict[Variant, Table]]:
    """The tables that hold a row."""
    found = {
        place: {variant: table for variant, table in tables.items() if table.rows}
        for place, tables in by_place.items()
    }
    return {place: tables for place, tables in found.items() if tables}
