"""Blobs in a dict: for tests and for stores that live as long as their process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from typing import IO

from adapters_store.blobs.protocol import BlobEntry, check_digest, check_size
from adapters_store.canonical import digest_of
from adapters_store.errors import CorruptStoreError, NotFoundError
from adapters_store.limits import DEFAULT_LIMITS


class MemoryBlobs:
    """Bytes in this process; ``max_bytes`` bounds one blob."""

    def __init__(self, *, max_bytes: int = DEFAULT_LIMITS.max_data_bytes) -> None:
        self.max_bytes = max_bytes
        self.items: dict[str, bytes] = {}
        self._put_at_s: dict[str, float] = {}
        self._lock = threading.Lock()

    @property
    def origin(self) -> MemoryBlobs:
        """This store itself."""
        return self

    def put(self, data: bytes) -> str:
        """Keep the bytes under their digest."""
        check_size(len(data), self.max_bytes)
        digest = digest_of(data)
        with self._lock:
            self.items[digest] = bytes(data)
            self._put_at_s[digest] = time.time()
        return digest

    def put_many(self, items: Iterable[bytes]) -> list[str]:
        """``put`` each of them."""
        return [self.put(data) for data in items]

    def get(self, digest: str) -> bytes:
        """The bytes, verified; raises NotFoundError or CorruptStoreError."""
        check_digest(digest)
        data = self.items.get(digest)
        if data is None:
            raise NotFoundError(f"blob {digest} is missing")
        if digest_of(data) != digest:
            raise CorruptStoreError(f"blob {digest} is damaged: its {len(data)} bytes differ")
        return data

    def copy_to(self, digest: str, target: IO[bytes]) -> int:
        """Write the verified bytes; raises as ``get``."""
        return target.write(self.get(digest))

    def size(self, digest: str) -> int | None:
        """The size in bytes, or None if absent."""
        check_digest(digest)
        data = self.items.get(digest)
        return None if data is None else len(data)

    def delete(self, digest: str, *, put_before_s: float | None = None) -> bool:
        """Forget the bytes unless they were put at or after ``put_before_s``."""
        check_digest(digest)
        with self._lock:
            put_at_s = self._put_at_s.get(digest)
            if put_at_s is None or (put_before_s is not None and put_at_s >= put_before_s):
                return False
            del self.items[digest], self._put_at_s[digest]
            return True

    def entries(self) -> Iterator[BlobEntry]:
        """Every blob held."""
        with self._lock:
            held = [
                BlobEntry(digest, len(data), self._put_at_s[digest])
                for digest, data in self.items.items()
            ]
        return iter(held)

    def uploads(self, older_than_s: float, *, remove: bool = True) -> int:
        """None: a put here is one assignment."""
        return 0
