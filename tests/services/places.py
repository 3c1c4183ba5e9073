"""Where a store stands, in words that another process can open it by."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from adapters_store.blobs import Blobs
from adapters_store.catalog import open_catalog
from adapters_store.limits import DEFAULT_LIMITS
from adapters_store.location import StoreConfig, open_blobs
from adapters_store.store import Store

_TESTS = Path(__file__).resolve().parents[1]
_PREAMBLE = """
import sys
from services.places import StorePlace
place, arguments = StorePlace(*sys.argv[1:4]), sys.argv[4:]
"""


@dataclass(frozen=True, slots=True)
class StorePlace:
    """A catalog and the blobs that belong to it: a folder, or ``s3://`` at that endpoint."""

    catalog: str
    blobs: str
    s3_endpoint_url: str = ""

    def open(self) -> Store:
        """A store of its own connections; made where there is none."""
        return Store(open_catalog(self.catalog), self.open_blobs())

    def open_blobs(self) -> Blobs:
        """The blobs alone."""
        config = StoreConfig(
            Path(), self.catalog, self.blobs, s3_endpoint_url=self.s3_endpoint_url or None
        )
        return open_blobs(config, max_bytes=DEFAULT_LIMITS.max_data_bytes)

    def start(self, code: str, *arguments: str) -> subprocess.Popen[str]:
        """Run Python code with ``place`` and ``arguments`` in a process of its own."""
        path = os.pathsep.join([str(_TESTS), str(_TESTS.parent), os.environ.get("PYTHONPATH", "")])
        where = (self.catalog, self.blobs, self.s3_endpoint_url)
        return subprocess.Popen(
            [sys.executable, "-c", _PREAMBLE + code, *where, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )


def answers(processes: list[subprocess.Popen[str]], *, timeout_s: float = 120) -> list[str]:
    """Let processes that wait for a line go on together; what each wrote until it ended."""
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    outputs = [process.communicate(timeout=timeout_s)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes)
    return outputs
