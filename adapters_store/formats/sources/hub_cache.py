"""The cache of huggingface_hub on disk: folders ``refs``, ``snapshots`` and ``blobs``.

A snapshot holds links into ``blobs``. They are followed once, and what they lead to is read only if
it is a plain file inside the repository's own folder of the cache.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from adapters_store.errors import InvalidArtefactError, NotFoundError, UnsafeArtefactError
from adapters_store.formats.sources.hub_client import COMMIT, HubFile
from adapters_store.limits import MIB


class HubCache:
    """One repository's part of the cache. ``location`` names the source in messages."""

    def __init__(self, folder: str | Path, repo_id: str, location: str) -> None:
        self._folder = Path(folder, f"models--{repo_id.replace('/', '--')}").resolve()
        self._location = location
        self._proven: set[tuple[Path, HubFile]] = set()

    def commit_of(self, revision: str) -> str:
        """The commit that a branch, tag or commit means in the cache; raises NotFoundError."""
        commit = revision
        if not COMMIT.fullmatch(commit):
            reference = self._folder / "refs" / revision
            commit = reference.read_text().strip() if reference.is_file() else ""
        if not COMMIT.fullmatch(commit) or not (self._folder / "snapshots" / commit).is_dir():
            raise NotFoundError(
                f"{self._location} is not in the cache of the hub, and HF_HUB_OFFLINE is set",
                hint="Unset HF_HUB_OFFLINE, or download the repository first.",
            )
        return commit

    def files(self, commit: str) -> list[tuple[str, HubFile]]:
        """Every file of a snapshot with its size."""
        return list(self._scan(self._folder / "snapshots" / commit, ""))

    def _scan(self, folder: Path, prefix: str) -> Iterator[tuple[str, HubFile]]:
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            name = prefix + entry.name
            if entry.is_dir(follow_symlinks=False):
                yield from self._scan(Path(entry.path), f"{name}/")
            else:
                yield name, HubFile(self._checked(Path(entry.path)).stat().st_size)

    def find(self, commit: str, name: str) -> Path | None:
        """The plain file behind a name of a snapshot, or None; raises UnsafeArtefactError."""
        path = self._folder / "snapshots" / commit / name
        return self._checked(path) if os.path.lexists(path) else None

    def read_range(self, path: Path, file: HubFile, begin: int, end: int) -> bytes:
        """A byte range of a file that ``find`` gave; its size and hash are checked once.

        Raises InvalidArtefactError where they are not what the hub says.
        """
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
        with os.fdopen(descriptor, "rb") as opened:
            if (path, file) not in self._proven:
                size = os.fstat(descriptor).st_size
                if size != file.size:
                    raise InvalidArtefactError(
                        f"a file of {self._location} has {size} bytes in the cache; "
                        f"expected {file.size}"
                    )
                self._check_hash(opened, file)
                self._proven.add((path, file))
            opened.seek(begin)
            data = opened.read(end - begin)
        if len(data) != end - begin:
            raise InvalidArtefactError(f"a file of {self._location} ends before byte {end}")
        return data

    def _check_hash(self, opened: BinaryIO, file: HubFile) -> None:
        if file.sha256 is not None:
            expected, found = file.sha256, hashlib.sha256()
        elif file.git_sha1 is not None:
            expected = file.git_sha1
            found = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
        else:
            return
        while chunk := opened.read(MIB):
            found.update(chunk)
        if found.hexdigest() != expected:
            raise InvalidArtefactError(
                f"a file of {self._location} has the hash {found.hexdigest()} in the cache; "
                f"the hub says {expected}",
                hint="Remove the damaged file from the cache of the hub and try again.",
            )

    def _checked(self, path: Path) -> Path:
        found = path.resolve()
        if not found.is_relative_to(self._folder) or not found.is_file():
            raise UnsafeArtefactError(
                f"{path.name!r} of {self._location} leads out of the cache of the hub"
            )
        return found
