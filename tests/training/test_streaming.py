"""Runs over files: the same weights however they are interrupted, read or mixed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from training_kit import tiny_recipe

from adapters_store.errors import TrainingError
from training.recipe import Recipe, TasksSection
from training.run import Run
from training.sources import load_tasks
from training.suite import generate
from training.task import Task

NAMES = ("kv-city", "phrase-snake", "us-date-iso")
SIZES = (40, 20, 10)


class CrashError(Exception):
    """Ends a run in the middle, as a crash would."""


def rows() -> list[dict[str, Any]]:
    """Suite examples of three tasks of different sizes, as rows."""
    return [
        {"task": name, "input": example.input, "output": example.output, "part": part}
        for name, size in zip(NAMES, SIZES)
        for part, count in (("train", size), ("dev", 3))
        for example in generate(name, "train" if part == "train" else "dev", count, 0)
    ]


def jsonl(folder: Path) -> dict[str, Any]:
    """A JSON Lines file."""
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows()))
    return {"source": "jsonl", "path": str(path)}


def arrow(folder: Path) -> dict[str, Any]:
    """A folder saved by datasets."""
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
    datasets.disable_progress_bars()
    datasets.Dataset.from_list(rows()).save_to_disk(folder / "saved")
    return {
        "source": "datasets",
        "path": str(folder / "saved"),
        "fields": {"task": "task", "part": "part"},
        "splits": {"dev": "dev"},
    }


def recipe_of(given: dict[str, Any], **train: Any) -> Recipe:
    """The tiny recipe over these rows, mixed by temperature, short rows first."""
    mixing = {"rule": "temperature", "temperature": 2, "max_examples": 30}
    tasks = TasksSection.model_validate(given | {"mixing": mixing})
    return tiny_recipe(curriculum_steps=6, **train).model_copy(update={"tasks": tasks})


def weights_of(run: Run) -> dict[str, torch.Tensor]:
    """A copy of everything the run has."""
    return {name: p.detach().clone() for name, p in run.model.named_parameters()}


@pytest.mark.parametrize("source", [jsonl, arrow])
def test_an_interrupted_run_over_a_file_ends_bit_for_bit_as_the_straight_one(
    source: Any, tmp_path: Path
) -> None:
    recipe = recipe_of(source(tmp_path))
    straight = Run.build(recipe)
    straight.train(tmp_path / "straight")

    def die(record: dict[str, Any]) -> None:
        if record["step"] > 2:
            raise CrashError

    with pytest.raises(CrashError):
        Run.build(recipe).train(tmp_path / "broken", die)
    resumed = Run.build(recipe)
    resumed.train(tmp_path / "broken")
    expected = weights_of(straight)
    for name, found in weights_of(resumed).items():
        assert torch.equal(found, expected[name]), name


def test_rows_on_disk_and_rows_in_memory_train_the_same_weights(tmp_path: Path) -> None:
    recipe = recipe_of(jsonl(tmp_path), steps=3)
    lazy = Run.build(recipe)
    held = Run.build(
        recipe, [Task(t.name, list(t.train), list(t.dev)) for t in load_tasks(recipe.tasks)]
    )
    for index, run in enumerate((lazy, held)):
        run.train(tmp_path / str(index))
    expected = weights_of(held)
    for name, found in weights_of(lazy).items():
        assert torch.equal(found, expected[name]), name


def test_a_loss_that_is_not_finite_over_a_file_names_step_tasks_and_checkpoint(
    tmp_path: Path,
) -> None:
    run = Run.build(recipe_of(jsonl(tmp_path)))

    def break_weights(record: dict[str, Any]) -> None:
        if record["step"] == 3:
            with torch.no_grad():
                next(run.model.parameters()).fill_(float("nan"))

    with pytest.raises(
        TrainingError, match=r"nan at step 3 \(tasks [a-z, -]+\); last good checkpoint: step 2"
    ):
        run.train(tmp_path / "run", break_weights)
