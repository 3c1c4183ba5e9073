"""How many bytes of keys and values an engine may hold, and how many it does.

A row counts with the whole place of its size class from the moment it joins, an input that is
read in parts with all its positions from the moment it begins. Slabs keep spare places for the
next rows only while the budget has bytes left for them. While a slab is resized, one of its layers
is there twice: only that much may go over the budget, and only to make a place that a row needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from serving.engine.kv import Slab
    from serving.engine.kv_store import KvStore

_ROW_BUCKET = 8


class KvBudget:
    """The bytes of all stores of one engine, and of what is held outside of their slabs."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self._held_bytes = 0
        self._stores: list[KvStore] = []

    def add(self, store: KvStore) -> None:
        """Count the slabs of ``store`` from now on."""
        self._stores.append(store)

    @property
    def num_bytes(self) -> int:
        """Bytes of all slabs, spare places included, and of what is held outside of them."""
        return self._held_bytes + sum(slab.num_bytes for slab in self._slabs())

    @property
    def used_bytes(self) -> int:
        """Bytes of the places that rows have, and of what is held outside of slabs."""
        return self._held_bytes + sum(len(slab.rows) * slab.row_bytes for slab in self._slabs())

    @property
    def free_bytes(self) -> int:
        """Bytes that new places may take."""
        return self.max_bytes - self.used_bytes

    def grown(self, slab: Slab) -> int:
        """The capacity that a full slab should have, at least one row more than it has rows."""
        capacity = slab.capacity
        wanted = max(-(-(capacity + 1) // _ROW_BUCKET) * _ROW_BUCKET, capacity * 3 // 2)
        bytes_then = self.num_bytes + (wanted - capacity) * slab.row_bytes
        if bytes_then + slab.layer_bytes <= self.max_bytes:
            return wanted
        self._trim()
        return len(slab.rows) + 1

    def hold(self, num_bytes: int) -> None:
        """Count bytes that are held outside of slabs from now on; spare places make room."""
        self._held_bytes += num_bytes
        if self.num_bytes > self.max_bytes:
            self._trim()

    def let_go(self, num_bytes: int) -> None:
        """Count bytes no longer that were held outside of slabs."""
        self._held_bytes -= num_bytes

    def _trim(self) -> None:
        for slab in self._slabs():
            if slab.capacity > len(slab.rows):
                slab.resize(len(slab.rows))

    def _slabs(self) -> list[Slab]:
        return [slab for store in self._stores for slab in store.slabs]
