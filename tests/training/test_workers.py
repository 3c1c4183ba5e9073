"""Two real processes train as one does: losses, weights, stopping, resuming and refusals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from training_kit import save_tiny_bert, tiny_recipe
from two_workers import gated_recipe, headed_run, uneven_recipe

from training import checkpoint
from training.recipe import Recipe
from training.run import Run

WEIGHTS = 1e-5
"""Adam divides by a gradient's size, so rounding shows most where gradients are smallest."""
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")


def environment() -> dict[str, str]:
    """One torch thread, and the packages that this process finds."""
    paths = os.pathsep.join(path for path in sys.path if path)
    return {**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}


def launch(*command: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=240)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two workers left behind."""
    out = tmp_path_factory.mktemp("together")
    save_tiny_bert(out / "bert")
    done = launch(*TORCHRUN, str(Path(__file__).with_name("two_workers.py")), str(out))
    assert done.returncode == 0, done.stderr
    return out


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [record["loss"] for record in records(folder)]


def assert_same_weights(left: Path, right: Path, tolerance: float = 0.0) -> None:
    """Every trained weight agrees to ``tolerance``; 0 means to the bit."""
    one, other = checkpoint.stored_weights(left), checkpoint.stored_weights(right)
    assert one.keys() == other.keys()
    for name, weight in one.items():
        torch.testing.assert_close(weight, other[name], rtol=0, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "recipe"),
    [("straight", uneven_recipe()), ("accumulated", uneven_recipe()), ("gated", gated_recipe())],
)
def test_two_workers_learn_what_one_learns(
    name: str, recipe: Recipe, together: Path, tmp_path: Path
) -> None:
    Run.build(recipe).train(tmp_path)
    assert losses(together / name) == pytest.approx(losses(tmp_path), rel=1e-6)
    assert [r["grad_norm"] for r in records(together / name)] == pytest.approx(
        [r["grad_norm"] for r in records(tmp_path)], rel=1e-5
    )
    assert_same_weights(together / name, tmp_path, WEIGHTS)


def test_parameters_that_no_row_of_a_worker_touches_neither_hang_nor_differ(
    together: Path, tmp_path: Path
) -> None:
    headed_run(together / "bert").train(tmp_path / "heads")
    assert losses(together / "heads") == pytest.approx(losses(tmp_path / "heads"), rel=1e-6)
    assert_same_weights(together / "heads", tmp_path / "heads", WEIGHTS)


def test_rank_0_alone_writes_the_folder_and_every_score_is_in_it(
    together: Path, tmp_path: Path
) -> None:
    Run.build(uneven_recipe()).train(tmp_path)
    assert [record["step"] for record in records(together / "straight")] == [1, 2, 3, 4]
    scores = [r["dev_tasks"] for r in records(together / "straight") if "dev_tasks" in r]
    assert scores == [r["dev_tasks"] for r in records(tmp_path) if "dev_tasks" in r]
    assert len(scores) == 2
    recorded = json.loads((together / "straight" / "environment.json").read_text())
    assert recorded["workers"] == 2
    assert sorted(p.name for p in (together / "straight").iterdir()) == sorted(
        p.name for p in tmp_path.iterdir()
    )


def test_a_stop_asked_of_one_worker_stops_both_and_resumes_bit_for_bit(together: Path) -> None:
    assert losses(together / "halted") == losses(together / "straight")
    assert_same_weights(together / "halted", together / "straight")


def test_both_workers_raise_the_one_fault(together: Path) -> None:
    told = [(together / f"told-{rank}.txt").read_text().splitlines() for rank in range(2)]
    assert told[0] == told[1]
    stopped, long, dev, differing, apart, torn, few, unread = told[0]
    assert stopped.startswith("KeyboardInterrupt")
    assert "401 tokens is over the limit of 128" in long
    assert dev == long
    assert differing.startswith("TrainingError the workers differ in data: sha256:")
    assert apart == "TrainingError the workers would go on from steps [4, 0]"
    assert "rows-1.jsonl, line 1: expected a JSON object" in torn
    assert "train.rows_per_step 1 is less than one row for each of 2 workers" in few
    assert "classification pools one stack" in unread


def test_two_workers_in_bfloat16_stay_near_float32(together: Path) -> None:
    assert losses(together / "bf16") == pytest.approx(losses(together / "straight"), rel=2e-2)
    assert losses(together / "bf16") != losses(together / "straight")


def test_the_command_under_a_launcher_prints_one_outcome(tmp_path: Path) -> None:
    file, folder = tmp_path / "tiny.yaml", tmp_path / "run"
    file.write_text(yaml.safe_dump(tiny_recipe(steps=2).model_dump(mode="json")))
    command = (*TORCHRUN, "-m", "patchbay", "train", "run", str(file), "--out", str(folder))
    done = launch(*command)
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["steps"] == 2
    assert done.stderr.count("step 2  loss") == 1


@pytest.mark.slow
def test_accelerate_launch_runs_the_command_in_bfloat16(tmp_path: Path) -> None:
    file, folder = tmp_path / "tiny.yaml", tmp_path / "run"
    recipe = tiny_recipe(steps=2, mixed_precision="bf16")
    file.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    done = launch(
        *(
            sys.executable,
            "-m",
            "accelerate.commands.launch",
            "--multi_gpu",
            "--num_processes",
            "2",
        ),
        *("-m", "patchbay", "train", "run", str(file), "--out", str(folder)),
    )
    assert done.returncode == 0, done.stderr
    (line,) = done.stdout.splitlines()
    assert json.loads(line)["steps"] == 2
    assert json.loads((folder / "environment.json").read_text())["workers"] == 2


@pytest.mark.slow
def test_ctrl_c_stops_all_workers_after_a_step_and_the_run_resumes(tmp_path: Path) -> None:
    file, folder = tmp_path / "tiny.yaml", tmp_path / "run"
    recipe = tiny_recipe(steps=100_000, save_every=100_000)
    file.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    arguments = (*TORCHRUN, "-m", "patchbay", "train", "run", str(file), "--out", str(folder))
    process = subprocess.Popen(arguments, env=environment(), start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while not (folder / "log.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.2)
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the launcher and all workers
        assert process.wait(60) != 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    step = checkpoint.latest_step(folder)
    assert step is not None
    assert 0 < step == records(folder)[-1]["step"]


@pytest.mark.slow
def test_a_second_run_into_the_folder_is_refused_by_every_worker(
    together: Path, tmp_path: Path
) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(tiny_recipe().model_dump(mode="json")))
    folder = together / "straight"
    done = launch(*TORCHRUN, "-m", "patchbay", "train", "run", str(file), "--out", str(folder))
    assert done.returncode != 0
    assert done.stderr.count("already holds a run") == 2
