"""The decode plan: what the running batch's adapters do, touched when its rows change.

The backend keeps the rows' low-rank products, and those of routed rows in the shared-bank form by
bank; all other effects are tensors in row order. Bare rows are in no table.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from serving.primitives.backend import Backend, Mixtures
from serving.primitives.layout import PackedSite
from serving.primitives.mixture import Bank, is_shared_cheaper
from serving.primitives.plan import Plan, effects
from serving.primitives.prepared import Prepared
from serving.primitives.rows import Stacked

Place = TypeVar("Place")
Variant = TypeVar("Variant")


class DecodePlan(Plan[Stacked]):
    """What the adapters of the decode batch do at the decoder's places.

    ``sites`` are all packed sites; ``active`` the indices that decode steps run. The batch never
    has more than ``max_rows`` rows.
    """

    def __init__(
        self,
        sites: Sequence[PackedSite],
        active: frozenset[int],
        dtype: torch.dtype,
        device: torch.device,
        form: str,
        balance: float,
        backend: Backend,
        max_rows: int,
    ) -> None:
        super().__init__(sites)
        self._active = active
        self._dtype, self._device = dtype, device
        self._form, self._balance = form, balance
        self._backend, self._max_rows = backend, max_rows
        self._products = backend.products(sites, active, dtype, device, max_rows)
        self._banks: dict[int, Mixtures] = {}

    @property
    def is_empty(self) -> bool:
        """True for a wholly bare batch, which then pays nothing."""
        return self._products.is_empty and not self._banks and not any(self._tables.values())

    @property
    def shape(self) -> Hashable | None:
        """Equal where a step does the same to the same memory; None where it cannot be recorded."""
        shapes = [self._products.shape, *(bank.shape for bank in self._banks.values())]
        if any(self._tables.values()) or any(shape is None for shape in shapes):
            return None
        return tuple(shapes)

    def refresh(self) -> None:
        """Bring the device up to date before a recorded step."""
        self._products.refresh()
        for bank in self._banks.values():
            bank.refresh()

    @property
    def num_bytes(self) -> int:
        """Bytes of all tables."""
        own = sum(table.num_bytes for table in self._all_tables())
        return self._products.num_bytes + own

    def join(self, row: int, prepared: Prepared, num_mates: int) -> None:
        """Add batch row ``row``; ``num_mates`` routed rows are expected to decode together."""
        self._products.touch()
        for table in self._all_tables():
            table.touch()
        mixture = prepared.mixture
        shared: frozenset[int] = frozenset()
        if mixture is not None and self._wants_shared(mixture.bank, num_mates):
            shared = frozenset(mixture.bank.sites)
            key = id(mixture.bank)
            if key not in self._banks:
                self._banks[key] = self._backend.mixtures(mixture.bank, self._sites, self._max_rows)
            self._banks[key].join(row, mixture)
        own = prepared.factors
        if shared:
            own = {index: factors for index, factors in own.items() if index not in shared}
        self._products.join(row, own)
        for kind, place, variant, tensors in effects(self._sites, prepared):
            if self._is_active(place):
                stacks = self._tables[kind].setdefault(place, {})
                if variant not in stacks:
                    stacks[variant] = Stacked(self._dtype, self._device)
                stacks[variant].join(row, tensors)

    def leave(self, row: int, last: int) -> None:
        """Drop batch row ``row``; batch row ``last`` takes its number."""
        self._products.leave(row, last)
        for table in self._all_tables():
            table.leave(row, last)
        self._tables = {kind: _occupied(places) for kind, places in self._tables.items()}
        self._banks = {key: bank for key, bank in self._banks.items() if bank.rows}

    def _add_products(self, index: int, x_TD: Tensor, y_TE: Tensor) -> None:
        self._products.apply(index, x_TD, y_TE)
        for bank in self._banks.values():
            bank.apply(index, x_TD, y_TE)

    def _all_tables(self) -> Iterator[Mixtures | Stacked]:
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
    by_place: Mapping[Place, Mapping[Variant, Stacked]],
) -> dict[Place, dict[Variant, Stacked]]:
    """The tables that hold a row."""
    found = {
        place: {variant: table for variant, table in tables.items() if table.rows}
        for place, tables in by_place.items()
    }
    return {place: tables for place, tables in found.items() if tables}
