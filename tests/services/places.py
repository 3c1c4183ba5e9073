"""Where a store stands, in words that another process can open it by."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from adapters_store.blobs.local import LocalBlobs
from adapters_store.catalog import open_catalog
from adapters_store.store import Store

_TESTS = Path(__file__).resolve().parents[1]
_PREAMBLE = """
import sys
from services.places import StorePlace
place, arguments = StorePlace(*sys.argv[1:3]), sys.argv[3:]
"""


@dataclass(frozen=True, slots=True)
class StorePlace:
    """A catalog and the blobs that belong to it."""

    catalog: str
    blobs: str

    def open(self) -> Store:
        """A store of its own connections; made where there is none."""
        return Store(open_catalog(self.catalog), LocalBlobs(self.blobs))

    def start(self, code: str, *arguments: str) -> subprocess.Popen[str]:
        """Run Python code with ``place`` and ``arguments`` in a process of its own."""
        path = os.pathsep.join([str(_TESTS), str(_TESTS.parent), os.environ.get("PYTHONPATH", "")])
        return subprocess.Popen(
            [sys.executable, "-c", _PREAMBLE + code, self.catalog, self.blobs, *arguments],
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
