"""The host tier: artefacts as they were read, so that what was evicted comes back without a read.

Plain adapters and banks keep their own tensors. Routings keep a row of a table that all tasks of
their bank share, so a hundred thousand of them are one tensor and a dictionary.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from serving.residency.item import WEIGHTS, Item
from serving.residency.routings import RoutingTable
from serving.residency.victims import Victims


@dataclass(frozen=True, slots=True)
class _Kept:
    """An item; a routing's weights are in ``row`` of ``table`` and not among its tensors."""

    item: Item
    num_bytes: int
    table: RoutingTable | None = None
    row: int = 0


class HostTier:
    """Items by artefact digest within ``max_bytes``; the least worth keeping goes first."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._kept: dict[str, _Kept] = {}
        self._victims = Victims()
        self._tables: dict[tuple[Any, ...], RoutingTable] = {}
        self._parts: dict[str, tuple[Any, ...]] = {}
        self.used_bytes = 0
        self.num_evictions = 0

    def __len__(self) -> int:
        return len(self._kept)

    def __contains__(self, digest: str) -> bool:
        return digest in self._kept

    @property
    def table_bytes(self) -> int:
        """Bytes of the routing tables, their free rows included."""
        return sum(table.num_bytes for table in self._tables.values())

    def get(self, digest: str) -> Item | None:
        """The item, which counts as used; None where it is not here."""
        kept = self._kept.get(digest)
        if kept is None:
            return None
        self._victims.offer(digest, kept.num_bytes)
        if kept.table is None:
            return kept.item
        weights = kept.table.weights(kept.row)
        return replace(kept.item, tensors={**kept.item.tensors, WEIGHTS: weights})

    def put(self, digest: str, item: Item) -> None:
        """Keep an item, unless it is here already or larger than the whole tier."""
        num_bytes = item.num_bytes
        if digest in self._kept or num_bytes > self._max_bytes:
            return
        while self.used_bytes + num_bytes > self._max_bytes:
            victim = self._victims.pop()
            assert victim is not None, "every kept item may go"
            self.num_evictions += 1
            self._forget(victim)
        self._kept[digest] = self._routed(item, num_bytes) or _Kept(item, num_bytes)
        self.used_bytes += num_bytes
        self._victims.offer(digest, num_bytes)

    def tasks_of(self, bank: str) -> set[str]:
        """The routings over ``bank`` that are here."""
        if not any(key[0] == bank for key in self._tables):
            return set()
        return {digest for digest, kept in self._kept.items() if kept.item.bank == bank}

    def drop(self, digest: str) -> None:
        """Forget an item, if it is here."""
        if digest in self._kept:
            self._victims.withdraw(digest)
            self._forget(digest)

    def _routed(self, item: Item, num_bytes: int) -> _Kept | None:
        weights = item.tensors.get(WEIGHTS)
        if item.bank is None or weights is None:
            return None
        key = (item.bank, weights.dtype, *weights.shape)
        table = self._tables.get(key)
        if table is None:
            table = self._tables[key] = RoutingTable(weights.shape, weights.dtype)
        others = {name: tensor for name, tensor in item.tensors.items() if name != WEIGHTS}
        known = self._parts.setdefault(item.bank, item.parts)
        parts = known if known == item.parts else item.parts
        thin = replace(item, parts=parts, tensors=others)
        return _Kept(thin, num_bytes, table, table.add(weights))

    def _forget(self, digest: str) -> None:
        kept = self._kept.pop(digest)
        self.used_bytes -= kept.num_bytes
        if kept.table is None:
            return
        kept.table.remove(kept.row)
        if not len(kept.table):
            self._tables = {k: table for k, table in self._tables.items() if len(table)}
            if not any(key[0] == kept.item.bank for key in self._tables):
                self._parts.pop(str(kept.item.bank), None)
