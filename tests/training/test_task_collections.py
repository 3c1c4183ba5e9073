"""Collections of tasks: a YAML file of data sets, and the layout of Super-NaturalInstructions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from adapters_store.errors import TrainingError, UsageError
from training.recipe import TasksSection
from training.sources import load_tasks
from training.suite import Example

ZERO_SHOT = (
    "Definition: Say the opposite.\n\nNow complete the following example -\nInput: hot.\nOutput: "
)
ONE_SHOT = (
    "Definition: Say the opposite.\n\n Positive Example 1 -\nInput: up.\n Output: down.\n\n"
    "Now complete the following example -\nInput: is it big?\nOutput: "
)


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    """A JSON Lines file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def collection(folder: Path, content: Any) -> TasksSection:
    """A collection over two JSON Lines files in a folder beside it."""
    rows = [{"q": f"question {n}", "a": "yes" if n % 2 else "no"} for n in range(10)]
    write_lines(folder / "data" / "one.jsonl", rows)
    write_lines(folder / "data" / "two.jsonl", rows[:4])
    (folder / "many.yaml").write_text(content if isinstance(content, str) else yaml.dump(content))
    return TasksSection(source="collection", path=str(folder / "many.yaml"))


def both(**more: Any) -> dict[str, Any]:
    """Two data sets; the first under two templates, with the caps of T0."""
    templates = [
        {"name": "ask", "input": "{q}?"},
        {"name": "jinja", "jinja": "{{q}}! ||| {{a}}", "answer_choices": "yes ||| no"},
    ]
    fields = {"input": "q", "output": "a"}
    return {
        "defaults": {"source": "jsonl", "fields": fields, "max_train_per_dataset": 6},
        "datasets": [
            {"path": "data/one.jsonl", "name": "one", "templates": templates},
            {"path": "data/two.jsonl", "name": "two", "labels": ["yes", "no"], **more},
        ],
    }


def test_a_collection_lists_data_sets_templates_caps_and_labels(tmp_path: Path) -> None:
    ask, jinja, two = load_tasks(collection(tmp_path, both()))
    assert [task.name for task in (ask, jinja, two)] == ["one.ask", "one.jinja", "two"]
    assert [len(task.train) for task in (ask, jinja, two)] == [3, 3, 4]
    assert jinja.train[0].choices == ("yes", "no")
    assert two.labels == ("yes", "no")
    assert two.train[1] == Example("question 1", "yes")


def test_the_recipe_sets_defaults_of_a_collection_and_picks_from_it(tmp_path: Path) -> None:
    section = collection(tmp_path, both(num_train=3))
    one, two = load_tasks(
        section.model_copy(update={"num_train": 2, "names": ("two", "*.ask"), "seed": 5})
    )
    assert (one.name, len(one.train)) == ("two", 3)
    assert (two.name, len(two.train)) == ("one.ask", 2)
    with pytest.raises(
        TrainingError, match=r"no rows of task\(s\) \['three'\]; it has \['one\.ask'"
    ):
        load_tasks(section.model_copy(update={"names": ("three",)}))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- 1", "expected a mapping with datasets, a list"),
        ("datasets: [1]", "data set 1 is no mapping: 1"),
        ("datasets: []\nmore: 1", r"has unknown keys \['more'\]"),
        ("datasets: []", "holds no tasks"),
        ("datasets: []\ndefaults: [1]", r"defaults is no mapping: \[1\]"),
        ("{", "cannot read collection"),
        ("datasets: [{source: collection, path: many.yaml}]", r"many\.yaml lists itself"),
        (both(pth="x"), r"many\.yaml, data set 2: pth: Extra inputs"),
        (both(revision="main"), "source 'jsonl' takes no revision"),
        (
            both(name="one", templates=[{"name": "ask", "input": "{q}"}]),
            r"tasks named \['one\.ask'\]",
        ),
        (both(path="data/three.jsonl"), r"cannot read .*data/three\.jsonl"),
        (both(labels=["yes"]), r"'two', train row 0 .*two\.jsonl, line 1\): label 'no'"),
    ],
)
def test_a_collection_that_cannot_be_read_says_which_data_set(
    tmp_path: Path, content: Any, message: str
) -> None:
    with pytest.raises((UsageError, TrainingError), match=message):
        load_tasks(collection(tmp_path, content))


def instructions(folder: Path, **more: Any) -> TasksSection:
    """Two tasks in the official layout, one of them listed in a split."""
    for number in (1, 2):
        content = {
            "Contributors": ["nobody"],
            "Definition": ["Say the opposite"],
            "Positive Examples": [
                {"input": "up", "output": "down", "explanation": "-"},
                {"input": "in", "output": "out", "explanation": "-"},
            ],
            "Instances": [
                {"id": "t-0", "input": "hot", "output": ["cold", "icy"]},
                {"id": "t-1", "input": "is it big?", "output": ["small"]},
                *({"id": f"t-{n}", "input": f"word {n}", "output": ["drow"]} for n in range(2, 20)),
            ],
        }
        path = folder / "tasks" / f"task00{number}_Opposites.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps(content))
    (folder / "splits" / "default").mkdir(parents=True)
    (folder / "splits" / "default" / "train_tasks.txt").write_text("task002_Opposites\n")
    return TasksSection(source="instructions", path=str(folder), **more)


def test_instructions_are_prompted_as_for_tk_instruct(tmp_path: Path) -> None:
    section = instructions(tmp_path)
    first, second = load_tasks(section)
    assert (first.name, second.name) == ("task001_opposites", "task002_opposites")
    assert first.train[0] == Example(ZERO_SHOT, "cold", references=("cold", "icy"))
    assert len(first.train) == 20
    (listed,) = load_tasks(section.model_copy(update={"split": "default/train_tasks"}))
    assert listed.name == "task002_opposites"
    shown = load_tasks(section.model_copy(update={"num_positive": 1}))[0].train[1]
    assert shown == Example(ONE_SHOT, "small")
    bare = load_tasks(section.model_copy(update={"has_definition": False}))[0].train[0]
    assert bare.input == "Now complete the following example -\nInput: hot.\nOutput: "


def test_instructions_are_divided_into_parts_that_share_no_row(tmp_path: Path) -> None:
    section = instructions(tmp_path, num_train=8, num_dev=4, num_test=2)
    task = load_tasks(section)[0]
    parts = [{row.input for row in part} for part in (task.train, task.dev, task.test)]
    assert [len(part) for part in parts] == [8, 4, 2]
    assert len(set.union(*parts)) == 14
    assert "hot" in task.test[0].input
    other = load_tasks(section.model_copy(update={"seed": 1}))[0]
    assert {row.input for row in other.dev} != parts[1]
    assert [*other.test] == [*task.test]


def test_instructions_take_templates_of_the_columns(tmp_path: Path) -> None:
    templates = [{"name": "short", "input": "{definition}: {input}", "output": "{id}"}]
    task = load_tasks(instructions(tmp_path, templates=templates))[0]
    assert (task.name, task.train[0]) == (
        "task001_opposites.short",
        Example("Say the opposite: hot", "t-0"),
    )


def test_instructions_that_are_not_there_or_not_whole_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"has no tasks/\*\.json"):
        load_tasks(TasksSection(source="instructions", path=str(tmp_path)))
    section = instructions(tmp_path)
    with pytest.raises(UsageError, match=r"cannot read split .*default/none\.txt"):
        load_tasks(section.model_copy(update={"split": "default/none"}))
    (tmp_path / "splits" / "x.txt").write_text("task003")
    with pytest.raises(UsageError, match=r"split 'x' names tasks without a file: \['task003'\]"):
        load_tasks(section.model_copy(update={"split": "x"}))
    path = tmp_path / "tasks" / "task001_Opposites.json"
    path.write_text(json.dumps({"Definition": [""], "Positive Examples": [], "Instances": [{}]}))
    with pytest.raises(TrainingError, match=r"_Opposites\.json, row 0: expected an instance"):
        load_tasks(section)
    path.write_text("{")
    with pytest.raises(UsageError, match=r"cannot read task .*task001_Opposites\.json"):
        load_tasks(section)
    path.write_text("{}")
    with pytest.raises(TrainingError, match="expected an object with Definition, Positive Ex"):
        load_tasks(section)
