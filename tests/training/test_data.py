"""Data and recipes: what is refused, and where the fault is said to be."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from training_kit import opinion_task, save_tiny_bert
from transformers import ByT5Tokenizer

from adapters_store.errors import TrainingError, UsageError
from training.backbones import load_tokenizer
from training.objectives.classification import Classification
from training.objectives.text2text import Text2Text
from training.recipe import (
    BackboneSection,
    TasksSection,
    find_recipe,
    load_recipe,
    packaged_recipes,
)
from training.sources import load_tasks, read_jsonl
from training.suite import Example
from training.task import Task


def test_an_empty_task_and_a_label_outside_the_set_are_refused() -> None:
    with pytest.raises(TrainingError, match="'t' has no training examples"):
        Task("t", train=[])
    rows = [Example("x", "yes"), Example("y", "maybe")]
    with pytest.raises(TrainingError, match=r"train row 1: label 'maybe' is not one of"):
        Task("t", train=rows, labels=("yes", "no"))


def test_an_input_or_output_over_the_limit_is_refused_by_its_text() -> None:
    objective = Text2Text(ByT5Tokenizer(extra_ids=0), max_input_tokens=8, max_output_tokens=4)
    assert objective.collate([(0, Example("1234567", "abc"))])["input_ids"].shape == (1, 8)
    with pytest.raises(
        TrainingError, match=r"input of 9 tokens is over the limit of 8: '12345678'"
    ):
        objective.collate([(0, Example("12345678", "abc"))])
    with pytest.raises(TrainingError, match="output of 5 tokens is over the limit of 4"):
        objective.collate([(0, Example("1", "abcd"))])


def test_padding_is_masked_and_labels_ignore_it() -> None:
    objective = Text2Text(ByT5Tokenizer(extra_ids=0))
    batch = objective.collate([(1, Example("ab", "c")), (0, Example("a", "cd"))])
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch["labels"][0].tolist()[-1] == -100
    assert batch["task_of_row"].tolist() == [1, 0]


def test_classification_numbers_labels_in_the_task_order(tmp_path: Path) -> None:
    tokenizer = load_tokenizer(BackboneSection(source=str(save_tiny_bert(tmp_path / "bert"))))
    objective = Classification(tokenizer, 6, labels=[("good", "bad"), ("bad", "good")])
    rows = opinion_task().train[:1]
    label = rows[0].output
    batch = objective.collate([(0, rows[0]), (1, rows[0])])
    assert batch["labels"].tolist() == [("good", "bad").index(label), ("bad", "good").index(label)]
    assert batch["input_ids"].shape[1] == 6


def test_json_lines_are_read_by_task_and_part(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    rows = [
        {"task": "b", "input": "1", "label": "y"},
        {"task": "a", "input": "2", "output": "n", "part": "dev"},
        {"task": "a", "input": "3", "output": "y"},
    ]
    with gzip.open(path, "wt") as file:
        file.write("\n".join(json.dumps(row) for row in rows))
    section = TasksSection(source="jsonl", path=str(path), has_labels=True)
    first, second = load_tasks(section)
    assert (first.name, first.labels, len(first.train), len(first.dev)) == ("a", ("n", "y"), 1, 1)
    assert second.train[0] == Example("1", "y")
    with pytest.raises(TrainingError, match=r"no rows of task\(s\) \['c'\]"):
        load_tasks(section.model_copy(update={"names": ("c",)}))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 3: expected a JSON object; JSONDecodeError"),
        ("[" * 100_000, "line 3: expected a JSON object; RecursionError"),
        ('"\\ud800', "line 3: expected a JSON object; JSONDecodeError"),
        ("[1]", "line 3: expected a JSON object; found list"),
        ("null", "line 3: expected a JSON object; found NoneType"),
        ('{"task": "a"}', r"line 3: there is no column 'input'; the row has \['task'\]"),
        ('{"task": "a", "inptu": "x"}', "did you mean 'inptu'"),
        ('{"task": "a", "input": "x"}', "line 3: expected a column label, outputs or output"),
        ('{"input": "x", "output": "y"}', "line 3: there is no column 'task'"),
        ('{"task": "a", "input": null, "output": "y"}', "line 3: column 'input' is null"),
        ('{"task": "a", "input": {}, "output": "y"}', "line 3: column 'input' holds a dict"),
        ('{"task": "a", "input": "x", "outputs": []}', r"line 3: column 'outputs' holds \[\]"),
        (
            '{"task": "a", "input": "x", "output": "y", "choices": ["n", "m"]}',
            r"line 3: output 'y' is not one of the choices \['n', 'm'\]",
        ),
        (
            '{"task": "a", "input": "x", "output": 2, "choices": ["n", "m"]}',
            r"line 3: column 'output' holds 2; expected the number of one of \['n', 'm'\]",
        ),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"task": "a", "input": "x", "output": "y"}\n\n' + line + "\n")
    with pytest.raises(TrainingError, match=message):
        read_jsonl(path)


def test_missing_files_and_unknown_suite_tasks_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        read_jsonl(tmp_path / "none.jsonl")
    with pytest.raises(UsageError, match=r"did you mean 'kv-city'\?"):
        load_tasks(TasksSection(names=("kv-cty",)))
    with pytest.raises(UsageError, match=r"tasks\.path is missing"):
        load_tasks(TasksSection(source="jsonl"))


def test_packaged_recipes_load_and_settings_replace_single_fields() -> None:
    assert "bytes-small" in packaged_recipes()
    for path in packaged_recipes().values():
        load_recipe(path)
    recipe = load_recipe(
        find_recipe("bytes-small"), ["train.steps=7", "method.sites=[self.q]", "name=mine"]
    )
    assert (recipe.train.steps, recipe.method.sites, recipe.name) == (7, ("self.q",), "mine")


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.stepz=1", r"train\.stepz: Extra inputs"),
        ("train.steps=0", "greater than or equal to 1"),
        ("train.steps", "expected key=value"),
        ("name.x=1", "no section"),
        ("train.steps=[", "not YAML"),
    ],
)
def test_a_bad_setting_is_refused(setting: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load_recipe(find_recipe("bytes-small"), [setting])


def test_all_faults_of_a_recipe_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text("name: x\nbackbone: {}\ntrain: {steps: -1, seed: a}\nextra: 1\n")
    with pytest.raises(UsageError, match=r"3 fault\(s\).*steps.*seed.*extra"):
        load_recipe(path)
    with pytest.raises(UsageError, match="no recipe 'nothing'"):
        find_recipe("nothing")
    with pytest.raises(UsageError, match="did you mean 'bytes-small'"):
        find_recipe("bytes-smal")


def test_a_bad_value_is_told_with_what_was_found_and_the_settings_that_made_it() -> None:
    with pytest.raises(UsageError, match=r"small.yaml with train.steps=0 .*, found 0$"):
        load_recipe(find_recipe("bytes-small"), ["train.steps=0"])


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"name: [a\n", "line 2: expected ',' or ']'"), (b"name: \xff", "can't decode byte 0xff")],
)
def test_a_file_that_is_no_recipe_is_refused_in_one_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=message) as refused:
        load_recipe(path)
    assert "\n" not in refused.value.message
