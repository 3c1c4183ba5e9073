"""A system that serves in a process of its own and answers runs over a pipe."""

from __future__ import annotations

import contextlib
import ctypes.util
import json
import os
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from adapters_store.errors import UnavailableError
from benchmarks.peers.environment import cache_folder, interpreter

START_S = 600.0
RUN_S = 600.0
_HERE = Path(__file__).parent
_ROOT = _HERE.parent.parent


@dataclass(frozen=True, slots=True)
class Reply:
    """One run: seconds by the wall and by the child's processor clock, and the rows' tokens."""

    wall_s: float
    busy_s: float
    tokens: list[list[int]]


class Child:
    """Starts ``served/<script>.py`` in the environment of ``pins``, or in our own for None.

    ``ready`` waits for the model, ``run`` asks for one run; both raise UnavailableError with the
    child's last words when it ends or says nothing. Leaving the context ends the process.
    """

    def __init__(self, name: str, script: str, pins: str | None, job: Path) -> None:
        self.name = name
        self.facts: dict[str, Any] = {}
        self._said = job.with_suffix(".log")
        python = Path(sys.executable) if pins is None else interpreter(pins)
        with open(self._said, "wb") as log:
            self._process = subprocess.Popen(
                [str(python), str(_HERE / "served" / f"{script}.py"), str(job)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env=_variables(None if pins is None else python.parent.parent),
                cwd=job.parent,
            )

    def ready(self) -> None:
        """Wait until the model is loaded; ``facts`` then hold the versions."""
        self.facts = self._line(START_S)

    def run(self, kind: str, count: int) -> Reply:
        """Serve all rows once: ``kind`` bare, lora or routed, with ``count`` distinct tasks."""
        assert self._process.stdin is not None
        order = json.dumps({"kind": kind, "count": count}) + "\n"
        try:
            self._process.stdin.write(order.encode())
            self._process.stdin.flush()
        except BrokenPipeError:
            raise self._error("is gone") from None
        return Reply(**self._line(RUN_S))

    def _line(self, timeout_s: float) -> dict[str, Any]:
        stream = self._process.stdout
        assert stream is not None
        if not select.select([stream], [], [], timeout_s)[0]:
            raise self._error(f"said nothing for {timeout_s:.0f} s")
        line = stream.readline()
        if not line:
            raise self._error(f"ended with code {self._process.wait()}")
        document: dict[str, Any] = json.loads(line)
        return document

    def _error(self, what: str) -> UnavailableError:
        words = self._said.read_text(errors="replace").splitlines()[-5:]
        return UnavailableError(
            f"{self.name} {what}; its last words: {' | '.join(words)}",
            hint="Remove the peer's folder in the cache so that it is made again, or free memory.",
        )

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        if kind is not None:
            process.kill()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def allocator() -> str | None:
    """The tcmalloc that vLLM's CPU guide asks for, where the system has one."""
    return ctypes.util.find_library("tcmalloc_minimal")


def _variables(folder: Path | None) -> dict[str, str]:
    """One thread for everyone; for a peer, a clean path and what its guide recommends."""
    dropped = {"PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "LD_PRELOAD"}
    found = {name: value for name, value in os.environ.items() if name not in dropped}
    found |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    if folder is None:
        return found | {"PYTHONPATH": str(_ROOT)}
    preloaded = [allocator(), str(folder / "lib" / "libiomp5.so")]
    if Path(preloaded[1] or "").exists():
        found["LD_PRELOAD"] = ":".join(name for name in preloaded if name)
    return found | {
        "VLLM_CACHE_ROOT": str(cache_folder() / "compiled"),
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_LOGGING_LEVEL": "ERROR",
        "VLLM_NO_USAGE_STATS": "1",
    }
