"""The commands: train, resume, ls, publish, adapt and eval, over one tiny run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from conftest import Published
from training_kit import tiny_recipe

from adapters_store.errors import (
    ConflictError,
    NotFoundError,
    PatchbayError,
    TrainingError,
    UsageError,
)
from training.cli import adapt, evaluate, publish, train
from training.suite import generate


def invoke(command: Any, *arguments: str | Path) -> str:
    """What a command prints on stdout; typed errors come out as they are."""
    result = CliRunner().invoke(command, [str(one) for one in arguments])
    if isinstance(result.exception, PatchbayError):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    """The tiny recipe as a file."""
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_recipe().model_dump(mode="json")))
    return path


def write_rows(path: Path, task: str, **parts: int) -> Path:
    """A JSON Lines file of suite examples."""
    rows = [
        {"input": e.input, "output": e.output, "part": part}
        for part, count in parts.items()
        for e in generate(task, "train" if part == "train" else "test", count, 0)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def test_run_ls_resume_and_publish(tmp_path: Path, recipe_file: Path) -> None:
    folder, store = tmp_path / "runs" / "one", tmp_path / "store"
    told = json.loads(invoke(train, "run", recipe_file, "--out", folder, "--set", "train.steps=2"))
    assert (told["run"], told["steps"]) == (str(folder), 2)
    listed = json.loads(invoke(train, "ls", "--runs", tmp_path / "runs", "--json"))
    assert listed["runs"] == [{"run": str(folder), "recipe": "tiny", "step": 2, "steps": 2}]
    assert "bytes-small" in listed["recipes"]
    assert "step 2/2" in invoke(train, "ls", "--runs", tmp_path / "runs")
    assert json.loads(invoke(train, "resume", folder))["loss"] is None
    with pytest.raises(ConflictError, match="already holds a run"):
        invoke(train, "run", recipe_file, "--out", folder)
    printed = invoke(publish, folder, "--tenant", "acme", "--store", store, "--form", "adapter")
    assert [line.split()[-1] for line in printed.splitlines()] == ["adapter"] * 3
    assert (folder / "backbone" / "config.json").is_file()


def test_adapt_and_eval_agree(published: Published, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", "phrase-kebab", train=6, test=3)
    backbone = published.folder / "backbone"
    location = str(published.folder.parent / "adapted")
    invoke(publish, published.folder, "--tenant", "acme", "--store", location, "--dtype", "float32")
    common = ("--backbone", backbone, "--data", data, "--store", location, "--json")
    (row,) = json.loads(
        invoke(
            adapt,
            *common,
            "--bank",
            "acme/bank",
            "--name",
            "acme/kebab",
            "--steps",
            "2",
            "--init",
            "nearest",
        )
    )
    assert row["kind"] == "routing"
    scored = json.loads(invoke(evaluate, "acme/kebab", *common))
    assert scored["exact_match"] == row["metrics"]["test"]
    assert (scored["num_examples"], scored["digest"]) == (3, row["digest"])


def test_faults_are_typed(published: Published, tmp_path: Path) -> None:
    backbone, store = published.folder / "backbone", tmp_path / "store"
    with pytest.raises(NotFoundError, match="no run in"):
        invoke(train, "resume", tmp_path / "none")
    with pytest.raises(NotFoundError, match="no checkpoint"):
        invoke(publish, tmp_path / "none", "--tenant", "acme", "--store", store)
    with pytest.raises(UsageError, match="no recipe"):
        invoke(train, "run", "bytes-smal")
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    common = ("--backbone", backbone, "--data", empty, "--store", store)
    with pytest.raises(TrainingError, match="no training examples"):
        invoke(adapt, *common, "--name", "acme/x", "--mode", "lora")
    rows = write_rows(tmp_path / "rows.jsonl", "phrase-kebab", train=2)
    with pytest.raises(UsageError, match="adapts a bank"):
        invoke(adapt, "--backbone", backbone, "--data", rows, "--store", store, "--name", "a/x")
