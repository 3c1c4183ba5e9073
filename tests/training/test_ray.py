"""Ray Train starts the workers: the same losses, a worker killed and replaced, faults and stops."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner
from test_workers import WEIGHTS, assert_same_weights, environment, losses, records
from training_kit import tiny_recipe

from adapters_store.errors import UnavailableError, UsageError
from training import checkpoint
from training.cli import train
from training.local_ray import connected
from training.recipe import Recipe
from training.run import Run

START_S = 400
MARK = "PATCHBAY_TEST_MARK"


def write(recipe: Recipe, folder: Path) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump(mode="json")))
    return path


@contextmanager
def started(mark: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    """`patchbay train ARGUMENTS` in a process of its own, whose workers carry ``mark``."""
    process = subprocess.Popen(
        [sys.executable, "-m", "patchbay", "train", *arguments],
        env=environment() | {MARK: mark},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.terminate()  # the command takes its Ray down with it
            process.communicate(timeout=60)


def wait_for_step(folder: Path, step: int, process: subprocess.Popen[str]) -> None:
    """Return when the run's log holds a record of that step or a later one."""
    deadline = time.monotonic() + START_S
    log = folder / "log.jsonl"
    while time.monotonic() < deadline:
        whole = log.read_text().rpartition("\n")[0] if log.exists() else ""
        if whole and json.loads(whole.splitlines()[-1])["step"] >= step:
            return
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)
    raise AssertionError(f"no step {step} in {START_S} s")


def worker_pids(mark: str) -> list[int]:
    """The training workers' processes that were started under the mark."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                title = (folder / "cmdline").read_bytes()
                variables = (folder / "environ").read_bytes().split(b"\0")
            except OSError:  # ended meanwhile, or somebody else's
                continue
            if b"RayTrainWorker" in title and f"{MARK}={mark}".encode() in variables:
                found.append(int(folder.name))
    return sorted(found)


@pytest.mark.timeout(900)
def test_a_killed_worker_is_replaced_and_nothing_of_the_result_changes(tmp_path: Path) -> None:
    recipe = tiny_recipe(steps=60, rows_per_step=7)
    folder, mark = tmp_path / "run", str(tmp_path)
    options = ("--workers", "2", "--max-failures", "1")
    path = write(recipe, tmp_path)
    with started(mark, "run", str(path), "--out", str(folder), *options) as process:
        wait_for_step(folder, 5, process)
        first = worker_pids(mark)
        assert len(first) == 2
        os.kill(first[-1], signal.SIGKILL)
        out, err = process.communicate(timeout=START_S)
    assert process.returncode == 0, err
    (line,) = out.splitlines()
    assert json.loads(line)["steps"] == 60
    assert "step 60  loss" in err
    seconds = [record["seconds"] for record in records(folder)]
    assert any(later < earlier for earlier, later in pairwise(seconds))  # begun anew
    assert [record["step"] for record in records(folder)] == list(range(1, 61))
    Run.build(recipe).train(tmp_path / "one")
    assert losses(folder) == pytest.approx(losses(tmp_path / "one"), rel=2e-6)
    assert_same_weights(folder, tmp_path / "one", 2 * WEIGHTS)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ctrl_c_saves_the_running_step_and_resume_goes_on_with_another_number(
    tmp_path: Path,
) -> None:
    recipe = tiny_recipe(steps=100, save_every=1000)
    folder, mark = tmp_path / "run", str(tmp_path)
    path = write(recipe, tmp_path)
    with started(mark, "run", str(path), "--out", str(folder), "--workers", "2") as process:
        wait_for_step(folder, 3, process)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=START_S)
    assert process.returncode == 130, err
    assert worker_pids(mark) == []
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == [
        *("checkpoint.pt", "environment.json", "log.jsonl", "recipe.json")
    ]
    step = checkpoint.latest_step(folder)
    assert step == records(folder)[-1]["step"]
    with started(mark, "resume", str(folder), "--workers", "3") as process:
        out, err = process.communicate(timeout=2 * START_S)
    assert process.returncode == 0, err
    assert "3 workers share" in err or (os.cpu_count() or 1) >= 3
    assert json.loads(out)["steps"] == 100
    Run.build(recipe).train(tmp_path / "one")
    assert losses(folder) == pytest.approx(losses(tmp_path / "one"), rel=1e-4)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_runs_own_fault_comes_back_typed_and_is_not_tried_again(tmp_path: Path) -> None:
    recipe = tiny_recipe().model_copy(update={"max_input_tokens": 4})
    folder, mark = tmp_path / "run", str(tmp_path)
    path = write(recipe, tmp_path)
    with started(mark, "run", str(path), "--out", str(folder), "--workers", "2") as process:
        _, err = process.communicate(timeout=START_S)
    assert process.returncode == 5
    assert err.count("is over the limit of 4") == 1


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_more_workers_than_the_cluster_has_cpus_are_refused(tmp_path: Path) -> None:
    program = (
        "from training.local_ray import _prepare_environment, connected\n"
        "_prepare_environment()\n"
        "import ray\n"
        "ray.init(address='local', num_cpus=1, include_dashboard=False, log_to_driver=False)\n"
        "try:\n"
        "    with connected(None, 2): pass\n"
        "except Exception as error:\n"
        "    print(type(error).__name__, error)\n"
        "assert ray.is_initialized()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment(), capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("UnavailableError 2 workers need 2 CPUs; the Ray at")


def test_a_ray_that_does_not_answer_or_is_not_installed_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UsageError, match="Ray Client address"), connected("ray://head:10001", 2):
        pass
    monkeypatch.setitem(sys.modules, "ray.train.torch", None)
    with (
        pytest.raises(UnavailableError, match="need Ray Train, which cannot be imported"),
        connected("head:6379", 2),
    ):
        pass


def test_options_of_a_cluster_without_workers_are_refused(tmp_path: Path) -> None:
    Run.build(tiny_recipe(steps=1)).train(tmp_path)
    for options in (("--ray-address", "auto"), ("--use-gpu",)):
        result = CliRunner().invoke(train, ["resume", str(tmp_path), *options])
        assert result.exit_code == 2
        assert "belong to --workers" in result.output


def test_workers_inside_a_launchers_process_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Run.build(tiny_recipe(steps=1)).train(tmp_path)
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = CliRunner().invoke(train, ["resume", str(tmp_path), "--workers", "2"])
    assert result.exit_code == 2
    assert "leave the launcher away" in result.output


def test_training_imports_no_ray() -> None:
    program = (
        "import sys, training.cli, training.run, training.cluster, training.local_ray\n"
        "print(sorted(name for name in sys.modules if name.split('.')[0] == 'ray'))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment(),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
