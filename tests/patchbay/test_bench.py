"""``patchbay bench`` in a process that knows no source folder."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMAND = "import sys; sys.path.insert(0, {!r}); from patchbay.cli import main; main()"


def run(folder, *arguments):
    environment = {name: v for name, v in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, "-P", "-c", COMMAND.format(str(ROOT)), "bench", *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_benchmarks_of_the_checkout_run_from_any_folder(tmp_path):
    done = run(tmp_path, "--help")
    assert done.returncode == 0, done.stderr
    unknown = run(tmp_path, "nothing")
    assert unknown.returncode == 2
    assert "unknown benchmark 'nothing'" in unknown.stderr
    assert "residency" in unknown.stderr
