"""``patchbay serve`` as a user runs it: a process of its own with a real local Ray."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import httpx

START_TIMEOUT_S = 280


class ServedCommand:
    """Runs the command with these arguments; ``http`` talks to it once entered."""

    def __init__(self, *arguments: str) -> None:
        self._arguments = arguments
        self._lines: list[str] = []
        self._url = threading.Event()
        self.url = ""
        self.key = ""

    def __enter__(self) -> ServedCommand:
        command = [sys.executable, "-c", "from serving.cli import serve; serve()"]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
        self.process = subprocess.Popen(
            [*command, "--port", "0", *self._arguments],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        if not self._url.wait(START_TIMEOUT_S) or not self.url:
            self._end()
            raise AssertionError("the command did not come up:\n" + "".join(self._lines))
        self.http = httpx.Client(base_url=self.url, timeout=120)
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()
        if self.process.poll() is None:
            self.stop()

    def stop(self) -> int:
        """Ctrl-C; returns the exit code."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(120)
        finally:
            self._end()

    def _end(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join(30)
        assert self.process.stderr is not None
        self.process.stderr.close()

    def cores(self) -> set[int]:
        """Process ids of the engine cores below the command."""
        parents: dict[int, int] = {}
        cores: set[int] = set()
        for folder in Path("/proc").glob("[0-9]*"):
            try:
                stat = (folder / "stat").read_text().rsplit(")", 1)[1].split()
                if stat[0] != "Z" and b"serving.core" in (folder / "cmdline").read_bytes():
                    cores.add(int(folder.name))
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents[int(folder.name)] = int(stat[1])
        return {core for core in cores if self._is_below(core, parents)}

    def _is_below(self, pid: int, parents: dict[int, int]) -> bool:
        while pid > 1:
            if pid == self.process.pid:
                return True
            pid = parents.get(pid, 0)
        return False

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.append(line)
            if found := re.search(r"at (http://\S+)", line):
                url = found[1]
            if found := re.search(r"development key: (\S+)", line):
                self.key = found[1]
            if line.startswith("stop with"):
                self.url = url
                self._url.set()
        self._url.set()
