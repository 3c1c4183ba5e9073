"""Artefacts of a store for the engine's residency, with the time that each load took."""

from __future__ import annotations

import time
from collections import deque

from torch import Tensor

from adapters_store.manifest import Manifest
from adapters_store.store import Store


class StoreLoader:
    """Reads manifest and verified tensors by digest; called from the engine's loader thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._loads_s: deque[float] = deque(maxlen=10_000)

    def load(self, digest: str) -> tuple[Manifest, dict[str, Tensor]]:
        """Manifest and tensors; raises NotFoundError or CorruptStoreError."""
        started = time.perf_counter()
        manifest, tensors = self._store.manifest(digest), self._store.tensors(digest)
        self._loads_s.append(time.perf_counter() - started)
        return manifest, dict(tensors)

    def take_loads(self) -> tuple[float, ...]:
        """Durations in seconds of the loads since the last call."""
        taken: list[float] = []
        while self._loads_s:
            taken.append(self._loads_s.popleft())
        return tuple(taken)
