"""A local cache in front of a blob store: each blob is fetched once, however many ask for it."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import IO

from adapters_store.blobs.batches import batches
from adapters_store.blobs.cache_folder import CacheFolder
from adapters_store.blobs.protocol import BlobEntry, Blobs, check_digest

LOG = logging.getLogger("patchbay.cache")


class CachedBlobs:
    """Reads through a folder of at most ``max_bytes``, which processes may share; puts go through.

    Copies are verified at every read; a damaged one is fetched again. Where the folder cannot be
    used, reads go to ``origin`` with a warning. Listings, sizes and deletions are the origin's.
    """

    def __init__(self, origin: Blobs, folder: str | Path, *, max_bytes: int) -> None:
        self._origin = origin
        self._cache = CacheFolder(folder, max_bytes)

    @property
    def origin(self) -> Blobs:
        """The store behind the cache."""
        return self._origin

    def put(self, data: bytes) -> str:
        """Store in the origin, then keep a copy."""
        digest = self._origin.put(data)
        self._keep(digest, data)
        return digest

    def put_many(self, items: Iterable[bytes]) -> list[str]:
        """Store in the origin a batch at a time, then keep copies."""
        digests: list[str] = []
        for batch in batches(items):
            stored = self._origin.put_many(batch)
            for digest, data in zip(stored, batch, strict=True):
                self._keep(digest, data)
            digests += stored
        return digests

    def get(self, digest: str) -> bytes:
        """The cached bytes, fetched first where there are none; raises as the origin does."""
        with self._copy(digest) as file:
            return self._origin.get(digest) if file is None else file.read()

    def copy_to(self, digest: str, target: IO[bytes]) -> int:
        """Write the cached bytes, fetched first where there are none."""
        with self._copy(digest) as file:
            if file is None:
                return self._origin.copy_to(digest, target)
            shutil.copyfileobj(file, target)
            return file.tell()

    def size(self, digest: str) -> int | None:
        """The origin's answer."""
        return self._origin.size(digest)

    def delete(self, digest: str, *, put_before_s: float | None = None) -> bool:
        """Delete in the origin and drop the copy; caches elsewhere keep theirs until eviction."""
        is_deleted = self._origin.delete(digest, put_before_s=put_before_s)
        if is_deleted:
            with self._tolerated():
                self._cache.drop(digest)
        return is_deleted

    def entries(self) -> Iterator[BlobEntry]:
        """The origin's entries."""
        return self._origin.entries()

    def uploads(self, older_than_s: float, *, remove: bool = True) -> int:
        """The origin's unfinished uploads."""
        return self._origin.uploads(older_than_s, remove=remove)

    @contextmanager
    def _copy(self, digest: str) -> Iterator[IO[bytes] | None]:
        """The verified copy as a file, or None where the folder cannot be used."""
        check_digest(digest)
        with ExitStack() as stack:
            file: IO[bytes] | None = None
            with self._tolerated():
                file = self._fetched(digest, stack)
            yield file

    def _fetched(self, digest: str, stack: ExitStack) -> IO[bytes]:
        while True:
            file = stack.enter_context(self._cache.opened(digest))
            if file is not None:
                return file
            with self._cache.fetching(digest):
                # Whoever held the lock before us may have fetched it: then look again.
                if not self._cache.has(digest):
                    fetch = partial(self._origin.copy_to, digest)
                    return stack.enter_context(self._cache.added(digest, fetch))

    def _keep(self, digest: str, data: bytes) -> None:
        def write(file: IO[bytes]) -> int:
            return file.write(data)

        with self._tolerated():
            if not self._cache.has(digest):
                with self._cache.added(digest, write):
                    pass

    @contextmanager
    def _tolerated(self) -> Iterator[None]:
        """Go on without the folder where the operating system refuses it."""
        try:
            yield
        except OSError as error:
            LOG.warning("the cache in %s is bypassed: %s", self._cache.root, error)
