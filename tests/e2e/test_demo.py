"""The first README command, as a visitor runs it: the whole tour on a real local Ray."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 280

pytestmark = pytest.mark.e2e


def run_demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run ``patchbay demo`` to its end in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "patchbay", "demo", "--exit", *arguments],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        timeout=TIMEOUT_S,
        check=False,
    )


def test_the_tour_ends_well_with_every_answer_right() -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    done = run_demo("--port", port)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "WRONG" not in done.stdout
    counted = re.search(r"(\d+) of (\d+) demonstrated answers are right", done.stdout)
    assert counted
    assert counted.group(1) == counted.group(2)
    taught = re.search(r"([\d.]+) before, ([\d.]+) after", done.stdout)
    assert taught
    assert float(taught.group(2)) >= float(taught.group(1)) + 0.5
    mixed = re.search(r"up to (\d+) distinct tasks shared one step", done.stdout)
    assert mixed
    assert int(mixed.group(1)) >= 8
    assert f"curl -s http://127.0.0.1:{port}/v1/models" in done.stdout


def test_a_taken_port_is_said_before_anything_starts() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = run_demo("--port", str(port))
    assert done.returncode == 2
    assert f"port {port} on 127.0.0.1 cannot be used" in done.stderr
    assert "--port" in done.stderr
