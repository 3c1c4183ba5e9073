"""A folder of cached blobs, shared by processes: least recently used ones leave over a budget.

Layout: ``sha256/ab/<hex>`` the blobs, whose access time is that of their last use; ``fetching/``
one lock file for each blob that is being fetched; ``usage`` the bytes held, changed under ``lock``.
A file that somebody reads carries a shared lock, so that it is not evicted.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from adapters_store.blobs.folders import locked, locked_name, make_folder, typed_errors
from adapters_store.blobs.protocol import check_digest
from adapters_store.errors import UsageError
from adapters_store.limits import MIB

_CHUNK_BYTES = MIB
_TEMPORARY = ".get-"
# Evict a little more than needed, so that the folder is not listed at every new blob.
_KEPT_RATIO = 0.9


class CacheFolder:
    """At most ``max_bytes`` of blobs, counted when a blob is added; raises UsageError below 1."""

    def __init__(self, root: str | Path, max_bytes: int) -> None:
        if max_bytes < 1:
            raise UsageError(f"the cache's max_bytes is {max_bytes}; expected at least 1")
        self.root = Path(root)
        self.max_bytes = max_bytes
        self._folder = self.root / "sha256"
        self._fetching = self.root / "fetching"
        self._lock_path, self._usage_path = self.root / "lock", self.root / "usage"
        self._is_counted = False
        self._count_lock = threading.Lock()
        with typed_errors(self.root):
            make_folder(self._folder)
            make_folder(self._fetching)

    def path(self, digest: str) -> Path:
        """Where the cached copy lies."""
        name = check_digest(digest)
        return self._folder / name[:2] / name

    def has(self, digest: str) -> bool:
        """True where there is a copy, sound or not."""
        return self.path(digest).exists()

    @contextmanager
    def fetching(self, digest: str) -> Iterator[None]:
        """Be the only one, of all threads and processes, that fetches this blob."""
        with locked_name(self._fetching / check_digest(digest)):
            yield

    @contextmanager
    def opened(self, digest: str) -> Iterator[IO[bytes] | None]:
        """The cached copy, sound and safe from eviction, or None; a damaged one is dropped."""
        try:
            file = self.path(digest).open("rb")
        except FileNotFoundError:
            yield None
            return
        with file:
            fcntl.flock(file, fcntl.LOCK_SH)
            if _digest_of_file(file) != digest:
                self.drop(digest, file)
                yield None
                return
            _mark_used(file)
            yield file

    @contextmanager
    def added(self, digest: str, write: Callable[[IO[bytes]], int]) -> Iterator[IO[bytes]]:
        """Let ``write`` fill a new copy; the file to read it from, safe from eviction.

        A blob over the whole budget is not kept. Raises OSError where the disk refuses or gives
        other bytes back.
        """
        path = self.path(digest)
        path.parent.mkdir(exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=path.parent)
        with os.fdopen(descriptor, "w+b") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH)
                num_bytes = write(file)
                file.flush()
                file.seek(0)
                if _digest_of_file(file) != digest:
                    raise OSError(errno.EIO, "The disk gives other bytes back", temporary)
                if num_bytes <= self.max_bytes:
                    self._keep(temporary, path, num_bytes)
            finally:
                with suppress(FileNotFoundError):
                    os.unlink(temporary)
            yield file

    def drop(self, digest: str, file: IO[bytes] | None = None) -> None:
        """Remove a copy; with ``file`` only while it is that file, not a newer one."""
        path = self.path(digest)
        with locked(self._lock_path), suppress(FileNotFoundError):
            found = path.stat()
            if file is not None and not os.path.samestat(found, os.fstat(file.fileno())):
                return
            path.unlink()
            usage_bytes = self._usage_bytes()
            if usage_bytes is not None:
                self._write_usage(usage_bytes - found.st_size)

    def _keep(self, temporary: str, path: Path, num_bytes: int) -> None:
        with locked(self._lock_path):
            replaced_bytes = path.stat().st_size if path.exists() else 0
            os.replace(temporary, path)
            usage_bytes = self._usage_bytes()
            if usage_bytes is not None:
                usage_bytes += num_bytes - replaced_bytes
            if usage_bytes is None or usage_bytes > self.max_bytes or self._is_first_count():
                usage_bytes = self._evict()
            self._write_usage(usage_bytes)

    def _is_first_count(self) -> bool:
        """True once per process: what a process that was killed left uncounted is found then."""
        with self._count_lock:
            is_first, self._is_counted = not self._is_counted, True
            return is_first

    def _evict(self) -> int:
        """Remove copies until the budget holds, oldest use first; returns the bytes that remain."""
        self._remove_temporaries()
        found = [(copy.stat(), copy.path) for copy in self._copies()]
        usage_bytes = sum(status.st_size for status, _ in found)
        if usage_bytes <= self.max_bytes:
            return usage_bytes
        for status, path in sorted(found, key=lambda copy: copy[0].st_atime_ns):
            if usage_bytes <= self.max_bytes * _KEPT_RATIO:
                break
            if _removed_if_unused(path):
                usage_bytes -= status.st_size
        return usage_bytes

    def _remove_temporaries(self) -> None:
        for path in self._folder.glob(f"??/{_TEMPORARY}*"):
            _removed_if_unused(str(path))

    def _copies(self) -> Iterator[os.DirEntry[str]]:
        for shard in self._folder.glob("??"):
            with os.scandir(shard) as files:
                yield from (file for file in files if not file.name.startswith("."))

    def _usage_bytes(self) -> int | None:
        """The bytes held as last written; None where nobody wrote them."""
        try:
            return int(self._usage_path.read_text(encoding="ascii"))
        except (FileNotFoundError, ValueError):
            return None

    def _write_usage(self, num_bytes: int) -> None:
        self._usage_path.write_text(str(num_bytes), encoding="ascii")


def _digest_of_file(file: IO[bytes]) -> str:
    hasher = hashlib.sha256()
    while piece := file.read(_CHUNK_BYTES):
        hasher.update(piece)
    file.seek(0)
    return f"sha256:{hasher.hexdigest()}"


def _mark_used(file: IO[bytes]) -> None:
    with suppress(OSError):
        written_ns = os.fstat(file.fileno()).st_mtime_ns
        os.utime(file.fileno(), ns=(time.time_ns(), written_ns))


def _removed_if_unused(path: str) -> bool:
    """Remove a file unless somebody reads or writes it."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.unlink(path)
    except (BlockingIOError, FileNotFoundError):
        return False
    finally:
        os.close(descriptor)
    return True
