"""The core's process as its parent sees it: start, liveness, end."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import serving
from serving.config import BackboneConfig, EngineSection
from serving.core.spec import CoreSpec

MAX_SOCKET_PATH = 100


class CoreChild:
    """One ``python -m serving.core`` process in its own session, with its private socket folder.

    ``gone`` is set when the process ended for whatever reason: the child holds the write end of a
    pipe, so no polling and no signal handler is needed. The child in turn ends with this process,
    because its standard input closes.
    """

    def __init__(self, backbone: BackboneConfig, engine: EngineSection, store: Path) -> None:
        self._folder = Path(_socket_folder())
        self.address = f"ipc://{self._folder}/core"
        self.gone = asyncio.Event()
        self._backbone, self._engine, self._store = backbone, engine, store
        self._process: subprocess.Popen[bytes] | None = None
        self._life = -1

    def start(self) -> None:
        """Spawn the process; its readiness arrives over the socket."""
        self._life, life_fd = os.pipe()
        spec = CoreSpec(
            backbone=self._backbone,
            engine=self._engine,
            store=self._store,
            address=self.address,
            life_fd=life_fd,
        )
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "serving.core"],
                stdin=subprocess.PIPE,
                env=_environment(self._engine.num_threads),
                pass_fds=(life_fd,),
                start_new_session=True,
            )
        finally:
            os.close(life_fd)
        assert self._process.stdin is not None
        self._process.stdin.write(spec.model_dump_json().encode() + b"\n")
        self._process.stdin.flush()
        asyncio.get_running_loop().add_reader(self._life, self._on_end)

    @property
    def pid(self) -> int:
        """Process id of the running or ended core."""
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """Exit code once the process has ended (negative: killed by that signal)."""
        return None if self._process is None else self._process.poll()

    async def stop(self, timeout_s: float) -> None:
        """Wait for the end that was asked for over the socket; then SIGTERM, then SIGKILL."""
        if self._process is not None:
            for end in (None, self._process.terminate, self._process.kill):
                if end is not None:
                    end()
                try:
                    await asyncio.wait_for(self.gone.wait(), timeout_s)
                    break
                except TimeoutError:
                    continue
            assert self._process.stdin is not None
            self._process.stdin.close()
            await asyncio.to_thread(self._process.wait)
        shutil.rmtree(self._folder, ignore_errors=True)

    def _on_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._life)
        os.close(self._life)
        self.gone.set()


def _socket_folder() -> str:
    folder = tempfile.mkdtemp(prefix="patchbay-core-")
    if len(folder) <= MAX_SOCKET_PATH:
        return folder
    os.rmdir(folder)
    return tempfile.mkdtemp(prefix="patchbay-core-", dir="/tmp")


def _environment(num_threads: int) -> dict[str, str]:
    root = str(Path(serving.__file__).parent.parent)
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    threads = str(num_threads)
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths)),
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
    }
