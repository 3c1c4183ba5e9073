"""Files that came in with a request."""

from __future__ import annotations

from collections.abc import Mapping

from adapters_store.errors import NotFoundError
from adapters_store.formats.sources.refusals import checked_name


class MemorySource:
    """Uploaded files by name. ``location`` stands for them in messages and provenance."""

    revision = ""

    def __init__(self, files: Mapping[str, bytes], location: str = "upload") -> None:
        self._files = {checked_name(name, location): data for name, data in files.items()}
        self._location = location

    @property
    def location(self) -> str:
        """The name given to the upload."""
        return self._location

    def sizes(self) -> Mapping[str, int]:
        """Every file."""
        return {name: len(data) for name, data in self._files.items()}

    def read_range(self, name: str, begin: int, end: int) -> bytes:
        """The bytes ``[begin, end)`` of a file."""
        if name not in self._files:
            raise NotFoundError(f"{self.location} has no file {name!r}")
        return self._files[name][begin:end]
