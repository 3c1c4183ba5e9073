"""The data that benchmarks read from outside, and the arms on an encoder with labels."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from dataclasses import replace

import pytest
from training_kit import opinion_task, save_tiny_bert

from adapters_store.errors import NotFoundError, UnavailableError
from benchmarks import superni, textcls_data
from benchmarks.arms import pretraining
from benchmarks.few_shot import kept_artefacts, run_cells
from benchmarks.sources import sources
from benchmarks.textcls_arms import FEW_ARMS, MANY_ARMS, SERVED_ARM, comparison, drawing
from training.adapt import Teacher
from training.recipe import BackboneSection, Recipe, TrainSection


@pytest.mark.parametrize(
    ("variable", "find", "error"),
    [
        ("PATCHBAY_SUPERNI", superni.data_folder, NotFoundError),
        ("PATCHBAY_TEXTCLS", textcls_data.data_folder, UnavailableError),
    ],
)
def test_data_that_is_missing_is_named_with_the_variable_that_says_where(
    monkeypatch, tmp_path, variable, find, error
) -> None:
    monkeypatch.setenv(variable, str(tmp_path))
    with pytest.raises(error, match=str(tmp_path)) as caught:
        find()
    assert variable in caught.value.hint
    (tmp_path / "tasks.json").write_text("{}")
    assert find() == tmp_path


def test_an_instruction_task_is_cut_and_its_draws_leave_test_alone(monkeypatch, tmp_path) -> None:
    rows = [
        {
            "task": "task1",
            "part": part,
            "definition": "Say " * 60,
            "input": f"{part} {number} " + "é" * 200,
            "outputs": [f"answer {number} " * 9, "other"],
        }
        for part, count in (("train", 3), ("val", 6), ("pool", 60), ("test", 70))
        for number in range(count)
    ]
    (tmp_path / "tasks.json").write_text("{}")
    with gzip.open(tmp_path / "superni_a.jsonl.gz", "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    monkeypatch.setenv("PATCHBAY_SUPERNI", str(tmp_path))
    superni._rows.cache_clear()
    try:
        (seen,) = superni.seen_tasks()
        first, second = (superni.few_shot("task1", seed) for seed in (0, 1))
    finally:
        superni._rows.cache_clear()
    assert (len(seen.train), len(seen.dev)) == (3, 4)
    sizes = [len(part) for part in (first.train, first.dev, first.test)]
    assert sizes == [superni.NUM_FEW, superni.NUM_DEV, superni.NUM_TEST]
    assert first.test == second.test
    assert {e.input for e in first.train} != {e.input for e in second.train}
    assert not {e.input for e in first.train} & {e.input for e in (*first.dev, *first.test)}
    longest = superni.MAX_DEFINITION_BYTES + 1 + superni.MAX_INSTANCE_BYTES
    assert all(len(e.input.encode()) <= longest for e in first.test)
    assert all(len(e.output.encode()) <= superni.MAX_OUTPUT_BYTES for e in first.test)
    assert all("other" in e.accepted for e in first.test)


def test_few_examples_are_drawn_evenly_over_labels() -> None:
    task = opinion_task()
    drawn = textcls_data.draw(task, 8, seed=1)
    assert Counter(example.output for example in drawn) == {"bad": 4, "good": 4}
    assert drawn == textcls_data.draw(task, 8, seed=1)
    assert sorted(e.input for e in textcls_data.draw(task, None, seed=1)) == sorted(
        e.input for e in task.train
    )


def test_arms_learn_labels_on_an_encoder(tmp_path) -> None:
    folder = save_tiny_bert(tmp_path / "bert")
    teacher, task = Teacher.open(folder), opinion_task()
    recipe = Recipe(
        name="tiny",
        objective="classification",
        backbone=BackboneSection(source=str(folder)),
        train=TrainSection(steps=2, rows_per_step=4),
    )
    methods = pretraining(2, 2, 2, ("all",), has_cross=False)
    seen = [replace(task, name=name) for name in ("first", "second")]
    made = sources(methods, recipe, seen, tmp_path, teacher.backbone, rates={"ia3": 2.0})
    chosen = comparison(2, 1, is_few=True)
    rows = run_cells(["opinion"], drawing([task], 8), teacher, made, chosen, tmp_path / "few")
    assert [row["arm"] for row in rows] == [arm.name for arm in FEW_ARMS]
    assert all(set(row["scores"]["exact_match"]) <= {0.0, 1.0} for row in rows)
    assert all(row["dev"] is not None for row in rows)
    assert set(kept_artefacts(tmp_path / "few", SERVED_ARM)) == {"opinion"}
    assert set(MANY_ARMS) < set(FEW_ARMS)
