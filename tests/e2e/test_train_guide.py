"""The guide on training runs as it stands: its blocks, one after another, in an empty folder."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "guides" / "train.md"
TIMEOUT_S = 1700
MARK = "@@ block"

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(TIMEOUT_S + 60)]


def blocks() -> list[str]:
    """The page's commands, block by block."""
    return re.findall(r"^```bash\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.M | re.S)


def run_page(folder: Path) -> list[str]:
    """Run every block in one shell that stops at the first failure; what each of them printed."""
    marked = [f"echo '{MARK}'\n{block}" for block in blocks()]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("PATCHBAY_")
    }
    environment |= {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), environment["PATH"]]),
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    with subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", "\n".join(marked)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            printed, _ = shell.communicate(timeout=TIMEOUT_S)
        finally:
            _end(shell)
    log = folder / "orders" / "serve.log"
    told = log.read_text() if log.is_file() else ""
    assert shell.returncode == 0, f"{printed}\n--- serve.log\n{told}"
    return printed.split(f"{MARK}\n")[1:]


def _end(shell: subprocess.Popen[str]) -> None:
    """End what a page that failed has left running; nothing where it ran to its end."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(shell.pid, number)
            shell.wait(60)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue


def last_json(printed: str) -> Any:
    """The last line that is a JSON object."""
    return json.loads([line for line in printed.splitlines() if line.startswith("{")][-1])


def test_every_command_of_the_page_does_what_it_says(tmp_path: Path) -> None:
    rows, train, report, publish, adapt, score, served, stopped, resumed, broken = run_page(
        tmp_path
    )
    assert re.search(r"1120 tasks\.jsonl\n\s*80 new\.jsonl", rows)
    outcome = last_json(train)
    assert outcome["steps"] == 60
    assert outcome["loss"] < 0.8
    assert "runs/orders/report.html" in report
    assert "<svg" in (tmp_path / "orders/runs/orders/report.html").read_text(encoding="utf-8")
    for name in ("bank", "order-city", "order-customer", "order-date", "order-domain"):
        assert f"acme/{name}" in publish
    scores = dict(re.findall(r"acme/shout-(\w+):1@\S+ .*  test ([\d.]+)", adapt))
    assert set(scores) == {"z", "mu", "full"}
    assert float(scores["full"]) >= 0.5
    assert re.search(r"exact match [\d.]+", score)
    assert re.search(r"rouge l [\d.]+", score)
    answer = last_json(served)
    assert answer["object"] == "text_completion"
    assert answer["model"] == "acme/shout-full"
    (choice,) = answer["choices"]
    assert choice["text"].isupper()
    assert stopped.strip() == ""
    assert re.search(r"run +runs/stopped +orders +step \d+/12", resumed)
    assert last_json(resumed)["steps"] == 12
    assert "broken.jsonl, line 1: expected a column label, outputs or output" in broken
    assert "exit code 5" in broken
