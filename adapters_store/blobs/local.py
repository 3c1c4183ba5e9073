"""Blobs in a folder: ``sha256/ab/<hex>``, each written once and atomically."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from adapters_store.blobs.protocol import check_digest, check_size
from adapters_store.canonical import digest_of
from adapters_store.errors import CorruptStoreError, NotFoundError
from adapters_store.limits import DEFAULT_LIMITS


class LocalBlobs:
    """A blob folder, safe for many processes: a blob appears under its name whole or not at all.

    ``max_bytes`` bounds what is written and what is read into memory.
    """

    def __init__(self, root: str | Path, *, max_bytes: int = DEFAULT_LIMITS.max_data_bytes) -> None:
        self.root = Path(root)
        self.max_bytes = max_bytes
        self._folder = self.root / "sha256"
        self._folder.mkdir(parents=True, exist_ok=True)

    def path(self, digest: str) -> Path:
        """Where the bytes of that digest lie."""
        name = check_digest(digest)
        return self._folder / name[:2] / name

    def put(self, data: bytes) -> str:
        """Write to a temporary file, fsync, link under the final name, fsync the folder."""
        check_size(len(data), self.max_bytes)
        digest = digest_of(data)
        path = self.path(digest)
        if self._is_sound(path, data):
            return digest
        if not path.parent.is_dir():
            path.parent.mkdir(parents=True, exist_ok=True)
            _sync_folder(self._folder)
        descriptor, temporary = tempfile.mkstemp(prefix=".put-", dir=path.parent)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o444)
            try:
                os.link(temporary, path)
            except FileExistsError:
                if not self._is_sound(path, data):
                    os.replace(temporary, path)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
        _sync_folder(path.parent)
        return digest

    def get(self, digest: str) -> bytes:
        """Read and verify; raises NotFoundError or CorruptStoreError."""
        path = self.path(digest)
        try:
            with path.open("rb") as file:
                check_size(os.fstat(file.fileno()).st_size, self.max_bytes)
                data = file.read()
        except FileNotFoundError as error:
            raise NotFoundError(f"blob {digest} is missing") from error
        found = digest_of(data)
        if found != digest:
            raise CorruptStoreError(f"blob {digest} is damaged: its {len(data)} bytes give {found}")
        return data

    def size(self, digest: str) -> int | None:
        """The file's size in bytes, or None if there is no file."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def digests(self) -> Iterator[str]:
        """Every blob in the folder."""
        for path in self._folder.glob("??/*"):
            if not path.name.startswith("."):
                yield f"sha256:{path.name}"

    def _is_sound(self, path: Path, data: bytes) -> bool:
        try:
            return path.stat().st_size == len(data) and path.read_bytes() == data
        except FileNotFoundError:
            return False


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
