"""Rows over the token limits: refused before a step, cut or left out on request, and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from training_kit import opinion_task, save_tiny_bert, tiny_recipe
from transformers import BertTokenizer, ByT5Tokenizer

from adapters_store.errors import TrainingError
from training.lengths import Limits, fitted, limits_of
from training.progress import tell
from training.recipe import BackboneSection, Recipe, TasksSection
from training.run import Run
from training.suite import Example
from training.task import Task

BYTES = ByT5Tokenizer(extra_ids=0)
ROWS = [Example("short", "yes"), Example("quite long", "no"), Example("x", "much too long")]


def limits(policy: Any, **more: Any) -> Limits:
    """Eight tokens in and six out, the end tokens included."""
    return Limits(8, 6, policy, **more)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            ROWS[:2],
            r"task 't', dev row 1: input of 11 tokens is over the limit of 8: 'quite long'",
        ),
        (
            [ROWS[0], ROWS[2]],
            r"task 't', dev row 1: output of 14 tokens is over the limit of 6: 'much too",
        ),
        (
            [ROWS[0], Example("x", "a", choices=("a", "much too long"))],
            "dev row 1: output of 14 tokens is over the limit of 6: 'much too long'",
        ),
    ],
)
def test_a_row_over_a_limit_is_refused_with_task_part_and_row(
    rows: list[Example], message: str
) -> None:
    with pytest.raises(TrainingError, match=message) as caught:
        fitted(Task("t", ROWS[:1], dev=rows), BYTES, limits("error"))
    assert "on_long_input" in caught.value.hint


def test_rows_may_be_dropped_and_are_counted() -> None:
    task, notes = fitted(Task("t", ROWS, dev=ROWS[:1], test=ROWS[1:]), BYTES, limits("drop"))
    assert list(task.train) == ROWS[:1]
    assert (list(task.dev), list(task.test)) == (ROWS[:1], [])
    assert notes == {"train_dropped": 2, "test_dropped": 2}


def test_inputs_may_be_cut_to_the_longest_beginning_that_fits() -> None:
    given = Task("t", ROWS[:2], dev=[Example("ä" * 10, "y", references=("y", "z"))])
    task, notes = fitted(given, BYTES, limits("cut"))
    assert list(task.train) == [ROWS[0], Example("quite l", "no")]
    assert task.dev[0] == Example("ä" * 3, "y", references=("y", "z"))
    assert task.train[1:][0].input == "quite l"
    assert notes == {"train_cut": 1, "dev_cut": 1}
    with pytest.raises(TrainingError, match="train row 2: output of 14 tokens"):
        fitted(Task("t", ROWS), BYTES, limits("cut"))


def test_a_task_of_which_nothing_is_left_is_an_error() -> None:
    with pytest.raises(TrainingError, match=r"'t': all 2 training rows are over the limit of 8"):
        fitted(Task("t", ROWS[1:]), BYTES, limits("drop"))


def test_rows_inside_the_limits_are_left_as_they_are() -> None:
    given = Task("t", ROWS[:1] * 300)
    task, notes = fitted(given, BYTES, limits("error"))
    assert task is given
    assert notes == {}


def test_words_count_as_the_tokenizer_counts_them(tmp_path: Path) -> None:
    save_tiny_bert(tmp_path)
    tokenizer = BertTokenizer(str(tmp_path / "vocab.txt"))
    rows = [Example("the food was very good", "good"), Example("the food was very very bad", "bad")]
    given = Task("t", rows, labels=("good", "bad"))
    task, notes = fitted(given, tokenizer, Limits(7, 3, "cut"))
    assert [row.input for row in task.train] == [rows[0].input, "the food was very very "]
    assert notes == {"train_cut": 1}
    task, notes = fitted(given, tokenizer, limits_of("classification", 7, 0, None))
    assert task is not None
    assert list(task.train) == rows
    assert notes == {"train_cut": 1}
    with pytest.raises(TrainingError, match="row 1: input of 8 tokens is over the limit of 7"):
        fitted(given, tokenizer, limits_of("classification", 7, 0, "error"))


def write_task(path: Path) -> TasksSection:
    """A JSON Lines task whose last row is long."""
    rows = [{"input": f"row {n}", "output": "y"} for n in range(8)]
    rows.append({"input": "long " * 40, "output": "y"})
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return TasksSection(source="jsonl", path=str(path), name="t")


def recipe_over(tasks: TasksSection, **more: Any) -> Recipe:
    """The tiny recipe on these tasks."""
    return tiny_recipe(steps=1).model_copy(update={"tasks": tasks, **more})


def test_a_run_names_the_line_of_a_long_row_before_its_first_step(tmp_path: Path) -> None:
    recipe = recipe_over(write_task(tmp_path / "rows.jsonl"))
    with pytest.raises(
        TrainingError,
        match=r"task 't', train row 8 \(.*rows\.jsonl, line 9\): input of 201 tokens is over the "
        r"limit of 128: 'long long",
    ):
        Run.build(recipe)


def test_a_run_records_and_tells_what_it_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = Run.build(recipe_over(write_task(tmp_path / "rows.jsonl"), on_long_input="drop"))
    run.train(tmp_path / "run")
    recorded = json.loads((tmp_path / "run" / "environment.json").read_text())["rows"]
    assert recorded == {"t": {"train": 8, "dev": 0, "test": 0, "train_dropped": 1}}
    tell(run.notes)
    assert capsys.readouterr().err == "task t: 1 train rows dropped\n"


def test_a_run_does_not_go_on_with_other_data(tmp_path: Path) -> None:
    recipe = recipe_over(write_task(tmp_path / "rows.jsonl"), on_long_input="cut")
    Run.build(recipe).train(tmp_path / "run")
    Run.build(recipe).train(tmp_path / "run")
    path = tmp_path / "rows.jsonl"
    path.write_text(path.read_text() + '{"input": "new", "output": "y"}\n')
    with pytest.raises(TrainingError, match=r"data of the run in .* changed.*numbers of rows: t"):
        Run.build(recipe).train(tmp_path / "run")


def test_a_run_is_not_published_under_the_names_of_other_data(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    rows = [{"task": name, "input": "1", "output": "y"} for name in ("one", "two")]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    Run.build(recipe_over(TasksSection(source="jsonl", path=str(path)))).train(tmp_path / "run")
    assert [task.name for task in Run.restored(tmp_path / "run").tasks] == ["one", "two"]
    path.write_text(path.read_text().replace("one", "zero"))  # sorted by name: two, zero
    with pytest.raises(TrainingError, match="changed since it began"):
        Run.restored(tmp_path / "run")


def test_classification_says_how_many_inputs_it_cuts(tmp_path: Path) -> None:
    recipe = Recipe(
        name="labels",
        objective="classification",
        max_input_tokens=6,
        backbone=BackboneSection(source=str(save_tiny_bert(tmp_path / "bert"))),
        method=tiny_recipe("lora").method,
    )
    task = opinion_task()
    run = Run.build(recipe, [task])
    assert run.notes == {"opinion": {"train_cut": 32, "dev_cut": 32, "test_cut": 32}}
    assert run.tasks[0].train == task.train
