"""Blobs in a folder: ``sha256/ab/<hex>``, each written once and atomically."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

from adapters_store.blobs.batches import batches, side_by_side
from adapters_store.blobs.folders import locked, make_folder, sync_folder, typed_errors
from adapters_store.blobs.protocol import BlobEntry, check_digest, check_size
from adapters_store.canonical import digest_of
from adapters_store.errors import CorruptStoreError, NotFoundError
from adapters_store.limits import DEFAULT_LIMITS, MIB
from adapters_store.names import is_digest

_CHUNK_BYTES = MIB
_SYNC_THREADS = 16
_TEMPORARY = ".put-"


class LocalBlobs:
    """A blob folder, safe for many processes: a blob appears under its name whole or not at all.

    ``max_bytes`` bounds what is written and what is read into memory.
    """

    def __init__(self, root: str | Path, *, max_bytes: int = DEFAULT_LIMITS.max_data_bytes) -> None:
        self.root = Path(root)
        self.max_bytes = max_bytes
        self._folder = self.root / "sha256"
        self._lock_path = self.root / "lock"
        self._durable_shards: set[Path] = set()
        with typed_errors(self.root):
            make_folder(self._folder)

    @property
    def origin(self) -> LocalBlobs:
        """This store itself."""
        return self

    def path(self, digest: str) -> Path:
        """Where the bytes of that digest lie."""
        name = check_digest(digest)
        return self._folder / name[:2] / name

    def put(self, data: bytes) -> str:
        """A batch of one."""
        return self.put_many((data,))[0]

    def put_many(self, items: Iterable[bytes]) -> list[str]:
        """Write temporary files, sync them side by side, rename them, sync each folder once.

        The syncs overlap so that the file system can commit many files at once.
        """
        digests: list[str] = []
        with typed_errors(self.root):
            for batch in batches(items):
                digests += self._put_batch(batch)
        return digests

    def get(self, digest: str) -> bytes:
        """Read and verify; raises NotFoundError or CorruptStoreError."""
        with self._opened(digest) as file, typed_errors(self.root):
            data = file.read()
        _check_content(digest, digest_of(data), len(data))
        return data

    def copy_to(self, digest: str, target: IO[bytes]) -> int:
        """Read, hash and write piece by piece."""
        hasher, num_bytes = hashlib.sha256(), 0
        with self._opened(digest) as file:
            while piece := self._read_piece(file):
                hasher.update(piece)
                num_bytes += target.write(piece)
        _check_content(digest, f"sha256:{hasher.hexdigest()}", num_bytes)
        return num_bytes

    def size(self, digest: str) -> int | None:
        """The file's size in bytes, or None if there is no file."""
        path = self.path(digest)
        with typed_errors(self.root):
            try:
                return path.stat().st_size
            except FileNotFoundError:
                return None

    def delete(self, digest: str, *, put_before_s: float | None = None) -> bool:
        """Unlink while no put can renew the file. After a crash it may be there again."""
        path = self.path(digest)
        with typed_errors(self.root), locked(self._lock_path):
            try:
                if put_before_s is not None and path.stat().st_mtime >= put_before_s:
                    return False
                path.unlink()
            except FileNotFoundError:
                return False
        return True

    def entries(self) -> Iterator[BlobEntry]:
        """Every blob in the folder."""
        with typed_errors(self.root):
            for file in self._files():
                digest = f"sha256:{file.name}"
                if is_digest(digest):
                    with contextlib.suppress(FileNotFoundError):
                        found = file.stat()
                        yield BlobEntry(digest, found.st_size, found.st_mtime)

    def uploads(self, older_than_s: float, *, remove: bool = True) -> int:
        """Temporary files of writers that did not come to their end."""
        oldest_s = time.time() - older_than_s
        num_found = 0
        with typed_errors(self.root):
            for file in self._files():
                with contextlib.suppress(FileNotFoundError):
                    if file.name.startswith(_TEMPORARY) and file.stat().st_mtime < oldest_s:
                        if remove:
                            os.unlink(file.path)
                        num_found += 1
        return num_found

    def _files(self) -> Iterator[os.DirEntry[str]]:
        for shard in sorted(self._folder.glob("??")):
            with os.scandir(shard) as files:
                yield from files

    @contextlib.contextmanager
    def _opened(self, digest: str) -> Iterator[IO[bytes]]:
        path = self.path(digest)
        with typed_errors(self.root):
            try:
                file = path.open("rb")
            except FileNotFoundError as error:
                raise NotFoundError(f"blob {digest} is missing") from error
        with file:
            check_size(os.fstat(file.fileno()).st_size, self.max_bytes)
            yield file

    def _read_piece(self, file: IO[bytes]) -> bytes:
        with typed_errors(self.root):
            return file.read(_CHUNK_BYTES)

    def _put_batch(self, batch: Sequence[bytes]) -> list[str]:
        for data in batch:
            check_size(len(data), self.max_bytes)
        digests = [digest_of(data) for data in batch]
        contents = dict(zip(digests, batch, strict=True))
        paths = {self.path(digest): data for digest, data in contents.items()}
        shards = {path.parent for path in paths}
        self._make_shards(shards)
        temporaries: dict[Path, str] = {}
        try:
            for path, data in paths.items():
                if not self._is_renewed(path, data):
                    temporaries[path] = _write_temporary(path.parent, data)
            side_by_side(_sync_file, list(temporaries.values()), num_threads=_SYNC_THREADS)
            with locked(self._lock_path, is_shared=True):
                for path, temporary in temporaries.items():
                    os.utime(temporary)
                    os.replace(temporary, path)
        finally:
            for temporary in temporaries.values():
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(temporary)
        # Also for blobs that were there: whoever wrote them may not have come to this line yet.
        side_by_side(sync_folder, list(shards), num_threads=_SYNC_THREADS)
        return digests

    def _make_shards(self, shards: set[Path]) -> None:
        new = shards - self._durable_shards
        if new:
            for shard in new:
                shard.mkdir(exist_ok=True)
            sync_folder(self._folder)
            self._durable_shards |= new

    def _is_renewed(self, path: Path, data: bytes) -> bool:
        """True where the file holds the data and now counts as put at this time."""
        with locked(self._lock_path, is_shared=True):
            try:
                if not _holds(path, data):
                    return False
                os.utime(path)
            except (FileNotFoundError, PermissionError):
                return False
        return True


def _write_temporary(folder: Path, data: bytes) -> str:
    descriptor, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            os.fchmod(file.fileno(), 0o444)
    except BaseException:
        os.unlink(temporary)
        raise
    return temporary


def _sync_file(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _holds(path: Path, data: bytes) -> bool:
    if path.stat().st_size != len(data):
        return False
    view = memoryview(data)
    with path.open("rb") as file:
        starts = range(0, len(data), _CHUNK_BYTES)
        return all(file.read(_CHUNK_BYTES) == view[at : at + _CHUNK_BYTES] for at in starts)


def _check_content(digest: str, found: str, num_bytes: int) -> None:
    if found != digest:
        raise CorruptStoreError(f"blob {digest} is damaged: its {num_bytes} bytes give {found}")
