"""A JSON Lines file by line: only the lines' places are held, the text stays on disk."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import tempfile
import weakref
import zlib
from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from adapters_store.errors import TrainingError, UsageError
from training.examples import Row
from training.sources.sections import one_line

_CHUNK = 1 << 20


class JsonLines:
    """The objects of a file, by position; blank lines do not count.

    A file ending in ``.gz`` is unpacked once, into a file without a name in the temporary folder
    that lasts as long as this. 8 bytes of memory a line. Raises UsageError for an unreadable file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.classes: Mapping[str, Sequence[str]] = {}
        self._starts, start = array("Q"), 0
        try:
            file = _opened(path)
            weakref.finalize(self, file.close)
            for line in file:
                if not line.isspace():
                    self._starts.append(start)
                start += len(line)
        except (OSError, EOFError, zlib.error) as error:
            raise UsageError(f"cannot read {path}: {one_line(error)}") from error
        self._file, self._size = file, start

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, index: int) -> Row:
        start = self._starts[index]
        end = self._starts[index + 1] if index + 1 < len(self._starts) else self._size
        try:
            row = json.loads(os.pread(self._file.fileno(), end - start, start))
        except (ValueError, RecursionError) as error:
            raise TrainingError(
                f"{self.where(index)}: expected a JSON object; {type(error).__name__}: {error}"
            ) from error
        if not isinstance(row, dict):
            raise TrainingError(
                f"{self.where(index)}: expected a JSON object; found {type(row).__name__}"
            )
        return row

    def where(self, index: int) -> str:
        """File and line, from 1."""
        number, start = 1, self._starts[index]
        for offset in range(0, start, _CHUNK):
            size = min(_CHUNK, start - offset)
            number += os.pread(self._file.fileno(), size, offset).count(b"\n")
        return f"{self.path}, line {number}"


def _opened(path: Path) -> IO[bytes]:
    if path.suffix != ".gz":
        return path.open("rb")
    unpacked = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        with gzip.open(path, "rb") as packed:
            shutil.copyfileobj(packed, unpacked, _CHUNK)
    except (OSError, EOFError, zlib.error):
        unpacked.close()
        raise
    unpacked.seek(0)
    return unpacked
