"""Where foreign adapters come from: a few named files that can be read in part, and no more."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Protocol

from adapters_store.errors import (
    ArtefactTooLargeError,
    InvalidArtefactError,
    NotFoundError,
    UnsafeArtefactError,
)
from adapters_store.limits import DEFAULT_LIMITS, Limits
from adapters_store.tensor_file import PREFIX_BYTES, StoredTensor, header_bytes, parse_header

MAX_FILES = 1000
_MAX_DEPTH = 3


class Source(Protocol):
    """Plain files under relative names with ``/`` between folders, read only.

    ``location`` is the address as a person gave it, for messages and provenance. A source that
    lists a link, a special file or a name that leaves it raises UnsafeArtefactError.
    """

    @property
    def location(self) -> str:
        """The address as it was given."""
        ...

    @property
    def revision(self) -> str:
        """The immutable revision that is read, such as a commit; empty where there is none."""
        ...

    def sizes(self) -> Mapping[str, int]:
        """Every file with its size in bytes; at most MAX_FILES of them."""
        ...

    def read_range(self, name: str, begin: int, end: int) -> bytes:
        """The bytes ``[begin, end)`` of a file, exactly; raises NotFoundError if it is absent."""
        ...


class FolderSource:
    """A local folder. Links are refused wherever they stand, hidden files are passed over."""

    revision = ""

    def __init__(self, folder: str | Path, location: str | None = None) -> None:
        self.folder = Path(folder)
        self._location = location or str(folder)
        if not self.folder.is_dir():
            raise NotFoundError(
                f"no adapter at {self._location}: it is not a folder",
                hint="Give the folder that holds the adapter's configuration and weights.",
            )

    @property
    def location(self) -> str:
        """The address as it was given."""
        return self._location

    def sizes(self) -> Mapping[str, int]:
        """Every plain file below the folder, three levels deep."""
        return self._sizes

    @cached_property
    def _sizes(self) -> dict[str, int]:
        found: dict[str, int] = {}
        self._scan(self.folder, "", 1, found)
        return found

    def _scan(self, folder: Path, prefix: str, depth: int, found: dict[str, int]) -> None:
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
            name = prefix + entry.name
            if entry.name.startswith("."):
                continue
            if entry.is_symlink():
                raise UnsafeArtefactError(f"{name!r} in {self._location} is a link; expected files")
            if entry.is_dir():
                if depth < _MAX_DEPTH:
                    self._scan(Path(entry.path), f"{name}/", depth + 1, found)
                continue
            status = entry.stat(follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                raise UnsafeArtefactError(f"{name!r} in {self._location} is not a plain file")
            found[name] = status.st_size
            if len(found) > MAX_FILES:
                raise ArtefactTooLargeError(
                    f"{self._location} holds more than {MAX_FILES} files",
                    hint="Give the folder of the adapter alone.",
                )

    def read_range(self, name: str, begin: int, end: int) -> bytes:
        """The bytes ``[begin, end)`` of a file that ``sizes`` lists."""
        if name not in self._sizes:
            raise NotFoundError(f"{self._location} has no file {name!r}")
        try:
            descriptor = _open_below(self.folder, name)
        except OSError as error:
            raise InvalidArtefactError(
                f"cannot read {name!r} in {self._location}: {error.strerror}"
            ) from error
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise UnsafeArtefactError(f"{name!r} in {self._location} is not a plain file")
            file.seek(begin)
            data = file.read(end - begin)
        if len(data) != end - begin:
            raise InvalidArtefactError(f"{name!r} in {self._location} changed while it was read")
        return data


def _open_below(folder: Path, name: str) -> int:
    """Open a file below a folder, following no link at any step; raises OSError."""
    *steps, last = name.split("/")
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        for step in steps:
            below = os.open(step, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = below
        return os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=here)
    finally:
        os.close(here)


def read_file(source: Source, name: str, max_bytes: int) -> bytes:
    """A whole file, its size checked first; raises NotFoundError or ArtefactTooLargeError."""
    size = source.sizes().get(name)
    if size is None:
        raise NotFoundError(f"{source.location} has no file {name!r}")
    if size > max_bytes:
        raise ArtefactTooLargeError(f"{name!r} has {size} bytes; the limit is {max_bytes}")
    return source.read_range(name, 0, size)


def read_tensor_table(
    source: Source, name: str, limits: Limits = DEFAULT_LIMITS
) -> tuple[StoredTensor, ...]:
    """The tensors of a safetensors file from its header alone; raises as ``parse_header``."""
    size = source.sizes().get(name)
    if size is None:
        raise NotFoundError(f"{source.location} has no file {name!r}")
    if size > limits.max_data_bytes:
        raise ArtefactTooLargeError(
            f"{name!r} has {size} bytes; the limit is {limits.max_data_bytes}"
        )
    prefix = source.read_range(name, 0, min(16, size))
    length = header_bytes(prefix, size, limits, name)
    header = source.read_range(name, PREFIX_BYTES, PREFIX_BYTES + length)
    return parse_header(header, size, limits=limits, what=name)
