"""Sources of tasks: the same rows by every way in, lazily, and faults that say where they are."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from adapters_store.errors import TrainingError, UnavailableError, UsageError
from training.examples import Examples, spelling
from training.recipe import TasksSection
from training.sources import SOURCES, load_tasks, plans
from training.sources.sections import FieldsSection
from training.suite import Example

datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")

ROWS = [
    {"text": "good food", "verdict": "yes"},
    {"text": "bad room", "verdict": "no"},
    {"text": "nice room", "verdict": "yes"},
    {"text": "poor food", "verdict": "no"},
]
EXAMPLES = [Example(row["text"], row["verdict"]) for row in ROWS]
FIELDS = {"input": "text", "output": "verdict"}


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A JSON Lines file, gzipped where its name says so."""
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def save_dataset(folder: Path) -> Path:
    """A saved DatasetDict whose output is a column of classes."""
    features = datasets.Features(
        {
            "text": datasets.Value("string"),
            "verdict": datasets.ClassLabel(names=["no", "yes"]),
            "options": datasets.List(datasets.Value("string")),
        }
    )
    numbers = [["no", "yes"].index(row["verdict"]) for row in ROWS]
    rows = {"text": [row["text"] for row in ROWS], "verdict": numbers}
    rows["options"] = [["no", "yes"]] * len(ROWS)
    one = datasets.Dataset.from_dict(rows, features=features)
    unlabelled = one.map(lambda row: {"verdict": -1}, features=features)
    datasets.DatasetDict({"train": one, "validation": one, "test": unlabelled}).save_to_disk(folder)
    return folder


def jsonl(folder: Path) -> dict[str, Any]:
    """A JSON Lines file without columns for task and part."""
    return {"source": "jsonl", "path": str(write_lines(folder / "one.jsonl", ROWS)), "name": "one"}


def packed(folder: Path) -> dict[str, Any]:
    """The same, gzipped."""
    path = write_lines(folder / "one.jsonl.gz", ROWS)
    return {"source": "jsonl", "path": str(path), "name": "one"}


def csv(folder: Path) -> dict[str, Any]:
    """A CSV file."""
    datasets.Dataset.from_list(ROWS).to_csv(folder / "one.csv")
    return {"source": "datasets", "path": str(folder / "one.csv")}


def parquet(folder: Path) -> dict[str, Any]:
    """A Parquet file."""
    datasets.Dataset.from_list(ROWS).to_parquet(folder / "one.parquet")
    return {"source": "datasets", "path": str(folder / "one.parquet")}


def json_lines_by_arrow(folder: Path) -> dict[str, Any]:
    """A JSON Lines file that `datasets` reads."""
    path = write_lines(folder / "one.jsonl", ROWS)
    return {"source": "datasets", "path": str(path)}


def saved(folder: Path) -> dict[str, Any]:
    """A folder of `save_to_disk`, its test split without labels."""
    return {
        "source": "datasets",
        "path": str(save_dataset(folder / "one")),
        "splits": {"dev": None, "test": None},
    }


def files_in_a_folder(folder: Path) -> dict[str, Any]:
    """A folder of files that `datasets` makes splits of by their names."""
    (folder / "one").mkdir()
    datasets.Dataset.from_list(ROWS).to_csv(folder / "one" / "train.csv")
    return {"source": "datasets", "path": str(folder / "one")}


def listed(folder: Path) -> dict[str, Any]:
    """A collection of one data set."""
    (folder / "many.yaml").write_text(
        json.dumps({"datasets": [{**csv(folder), "path": "one.csv", "fields": FIELDS}]})
    )
    return {"source": "collection", "path": str(folder / "many.yaml"), "fields": None}


WAYS = [jsonl, packed, csv, parquet, json_lines_by_arrow, saved, files_in_a_folder, listed]


def section(way: Callable[[Path], dict[str, Any]], folder: Path, **more: Any) -> TasksSection:
    """The recipe's section for a way in."""
    given = {"fields": FIELDS, **way(folder), **more}
    return TasksSection.model_validate({k: v for k, v in given.items() if v is not None})


@pytest.mark.parametrize("way", WAYS)
def test_every_way_in_gives_the_same_examples(
    way: Callable[[Path], dict[str, Any]], tmp_path: Path
) -> None:
    (task,) = load_tasks(section(way, tmp_path))
    assert task.name == "one"
    assert list(task.train) == EXAMPLES
    assert list(task.train[1:3]) == EXAMPLES[1:3]
    assert (len(task.dev), len(task.test)) == (0, 0)
    assert isinstance(task.train, Examples)
    assert task.train.digest == sha256(b"".join(map(spelling, EXAMPLES))).digest()


def test_every_source_is_tried_here_or_has_a_file_of_its_own() -> None:
    assert set(SOURCES) == {"suite", "jsonl", "datasets", "instructions", "collection"}


@pytest.mark.parametrize("way", WAYS[:-1])
def test_a_cap_is_a_draw_by_the_seed_and_keeps_no_order_of_the_file(
    way: Callable[[Path], dict[str, Any]], tmp_path: Path
) -> None:
    one = section(way, tmp_path, num_train=2)
    drawn = [
        tuple(load_tasks(one.model_copy(update={"seed": seed}))[0].train) for seed in range(12)
    ]
    assert all(len(set(rows)) == 2 and set(rows) <= set(EXAMPLES) for rows in drawn)
    assert len({frozenset(rows) for rows in drawn}) > 2
    assert tuple(load_tasks(one)[0].train) == drawn[0]


def test_a_column_of_classes_gives_names_and_labels_and_minus_one_is_refused(
    tmp_path: Path,
) -> None:
    given = section(saved, tmp_path, splits={"test": None})
    (task,) = load_tasks(given)
    assert task.labels == ("no", "yes")
    assert sorted(row.output for row in task.dev) == ["no", "no", "yes", "yes"]
    with pytest.raises(
        TrainingError, match=r"one\[test\], row 0: column 'verdict' holds -1; .*\['no', 'yes'\]"
    ):
        load_tasks(given.model_copy(update={"splits": None}))


def test_choices_and_several_inputs_come_from_columns(tmp_path: Path) -> None:
    fields = {"input": ["text", "verdict"], "output": "verdict", "choices": "options"}
    (task,) = load_tasks(section(saved, tmp_path, fields=fields))
    assert task.train[0] == Example("good food\nyes", "yes", choices=("no", "yes"))
    rows = [
        {"input": "x", "label": 1, "choices": ["a", "b"]},
        {"input": "y", "outputs": ["b", "c"]},
    ]
    path = write_lines(tmp_path / "rows.jsonl", rows)
    (task,) = load_tasks(TasksSection(source="jsonl", path=str(path), name="t"))
    assert task.train[0] == Example("x", "b", choices=("a", "b"))
    assert task.train[1] == Example("y", "b", references=("b", "c"))


def test_rows_are_grouped_by_columns_for_task_and_part(tmp_path: Path) -> None:
    rows = [
        {"q": "1", "a": "x", "set": "one", "fold": "train"},
        {"q": "2", "a": "y", "set": "two", "fold": "train"},
        {"q": "3", "a": "z", "set": "one", "fold": "val"},
        {"q": "4", "a": "z", "set": "one", "fold": "pool"},
    ]
    path = write_lines(tmp_path / "rows.jsonl", rows)
    fields = {"input": "q", "output": "a", "task": "set", "part": "fold"}
    for source in ("jsonl", "datasets"):
        given = TasksSection(
            source=source, path=str(path), fields=fields, splits={"dev": "val", "test": None}
        )
        one, two = load_tasks(given)
        assert (one.name, two.name) == ("one", "two")
        assert ([*one.train], [*one.dev]) == ([Example("1", "x")], [Example("3", "z")])
        assert ([*two.train], [*two.dev]) == ([Example("2", "y")], [])
        with pytest.raises(
            TrainingError, match=r"task 'one' has rows of part\(s\) \['pool', 'val'\]"
        ):
            load_tasks(given.model_copy(update={"splits": None}))


def test_names_are_patterns_and_a_task_that_is_not_wanted_is_not_read(tmp_path: Path) -> None:
    rows = [
        {"task": "a.1", "input": "1", "output": "y"},
        {"task": "a.2", "input": "2", "label": "n"},
    ]
    path = write_lines(tmp_path / "rows.jsonl", [*rows, {"task": "b", "input": "no output"}])
    given = TasksSection(source="jsonl", path=str(path), names=("a.*",))
    assert [task.name for task in load_tasks(given)] == ["a.1", "a.2"]
    assert [plan.name for plan in plans(given.model_copy(update={"names": None}))][-1] == "b"


def test_a_label_outside_the_set_is_named_with_its_line(tmp_path: Path) -> None:
    rows = [{"task": "t", "input": str(n), "label": "maybe" if n == 2 else "yes"} for n in range(4)]
    path = write_lines(tmp_path / "rows.jsonl", rows)
    given = TasksSection(source="jsonl", path=str(path), labels=("yes", "no"))
    with pytest.raises(
        TrainingError,
        match=r"task 't', train row 2 \(.*rows.jsonl, line 3\): label 'maybe' is not one of",
    ):
        load_tasks(given)
    (task,) = load_tasks(TasksSection(source="jsonl", path=str(path), has_labels=True))
    assert task.labels == ("maybe", "yes")


def test_a_label_that_is_listed_twice_is_refused(tmp_path: Path) -> None:
    path = write_lines(tmp_path / "rows.jsonl", [{"task": "t", "input": "1", "label": "yes"}])
    with pytest.raises(TrainingError, match="task 't' has a label twice"):
        load_tasks(TasksSection(source="jsonl", path=str(path), labels=("yes", "no", "yes")))


@pytest.mark.parametrize("column", ["input", "output", "choices", "references"])
def test_text_that_cannot_be_written_is_named_with_its_line(tmp_path: Path, column: str) -> None:
    bad = ["no", "\ud800"] if column in ("choices", "references") else "\ud800"
    path = write_lines(tmp_path / "rows.jsonl", [{"input": "1", "output": "no"} | {column: bad}])
    with pytest.raises(TrainingError, match=r"line 1: '\\ud800' holds half of a surrogate pair"):
        load_tasks(TasksSection(source="jsonl", path=str(path), name="t"))


def test_a_split_that_no_row_is_of_is_refused_with_those_there_are(tmp_path: Path) -> None:
    rows = [{"input": str(n), "output": "y", "part": p} for n, p in enumerate(("train", "valid"))]
    path = write_lines(tmp_path / "rows.jsonl", rows)
    fields = FieldsSection(part="part")
    for source in ("jsonl", "datasets"):
        given = TasksSection(
            source=source, path=str(path), name="t", fields=fields, splits={"dev": "validation"}
        )
        with pytest.raises(UsageError, match=r"no split\(s\) \['validation'\].*'train', 'valid'"):
            load_tasks(given)
        (task,) = load_tasks(given.model_copy(update={"splits": {"dev": "valid"}}))
        assert (len(task.train), len(task.dev)) == (1, 1)


def test_dev_rows_are_in_a_drawn_order_and_test_rows_in_the_order_of_the_file(
    tmp_path: Path,
) -> None:
    rows = [{"input": f"{n:02}", "output": "ab"[n // 20]} for n in range(40)]
    parts = [row | {"part": part} for part in ("train", "dev", "test") for row in rows]
    path = write_lines(tmp_path / "rows.jsonl", parts)
    (task,) = load_tasks(TasksSection(source="jsonl", path=str(path), name="t"))
    assert sorted(row.input for row in task.dev) == [row["input"] for row in rows]
    assert {row.output for row in task.dev[:16]} == {"a", "b"}
    assert [row.input for row in task.test] == [row["input"] for row in rows]


def test_an_empty_task_is_refused_by_name(tmp_path: Path) -> None:
    rows = [{"task": "t", "input": "1", "output": "y", "part": "dev"}]
    path = write_lines(tmp_path / "rows.jsonl", rows)
    with pytest.raises(TrainingError, match="task 't' has no training examples"):
        load_tasks(TasksSection(source="jsonl", path=str(path)))
    path.write_text("")
    with pytest.raises(TrainingError, match=r"rows\.jsonl holds no tasks"):
        load_tasks(TasksSection(source="jsonl", path=str(path)))


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"source": "dataset"}, UsageError, r"unknown task source.*Did you mean 'datasets'\?"),
        ({"source": "datasets"}, UsageError, r"tasks\.path is missing"),
        ({"source": "suite", "path": "x"}, UsageError, "source 'suite' takes no path"),
        ({"source": "jsonl", "path": "x", "revision": "1"}, UsageError, "takes no revision"),
        ({"source": "datasets", "path": "none.csv"}, UsageError, "cannot open data set none.csv"),
        ({"source": "datasets", "path": "some/name"}, UnavailableError, "cannot reach data set"),
        ({"source": "suite", "names": ["kv-city"] * 2}, TrainingError, "several tasks named"),
    ],
)
def test_a_section_that_names_nothing_is_refused(
    given: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        load_tasks(TasksSection.model_validate(given))


def test_what_a_data_set_does_not_have_is_named_with_what_it_has(tmp_path: Path) -> None:
    given = section(saved, tmp_path)
    with pytest.raises(
        UsageError, match=r"no split\(s\) \['valid'\]; it has \['test', 'train', 'val"
    ):
        load_tasks(given.model_copy(update={"splits": {"dev": "valid"}}))
    fields = FieldsSection(input="txt", output="verdict")
    with pytest.raises(
        TrainingError,
        match=r"\[train\], row 0: there is no column 'txt'; the row has .*did you mean 'text'\?",
    ):
        load_tasks(given.model_copy(update={"fields": fields}))
    with pytest.raises(UsageError, match="config and revision choose from the hub"):
        load_tasks(given.model_copy(update={"config": "plain"}))


def test_a_hub_data_set_is_asked_for_by_name_config_and_revision(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[Any] = []

    def load(path: str, config: str, revision: str) -> Any:
        asked.append((path, config, revision))
        return datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)})

    monkeypatch.setattr(datasets, "load_dataset", load)
    (task,) = load_tasks(
        TasksSection(
            source="datasets", path="owner/Glue", config="sst2", revision="abc", fields=FIELDS
        )
    )
    assert asked == [("owner/Glue", "sst2", "abc")]
    assert task.name == "glue.sst2"


def test_a_field_of_a_column_of_objects_is_a_column(tmp_path: Path) -> None:
    rows = [{"q": "who?", "answers": {"text": ["me", "I"], "start": [0, 4]}}]
    path = write_lines(tmp_path / "squad.jsonl", rows)
    for source in ("jsonl", "datasets"):
        given = {"source": source, "path": str(path), "name": "t"}
        fields = {"input": "q", "output": "answers.text"}
        (task,) = load_tasks(TasksSection.model_validate(given | {"fields": fields}))
        assert list(task.train) == [Example("who?", "me", references=("me", "I"))]
        fields["output"] = "answers.txt"
        with pytest.raises(TrainingError, match=r"there is no column 'answers\.txt'"):
            load_tasks(TasksSection.model_validate(given | {"fields": fields}))


@pytest.mark.parametrize(
    ("name", "content"), [("a.parquet", "no parquet"), ("a.json", "{"), ("a.csv", 'x,y\n"1')]
)
def test_a_file_that_datasets_cannot_read_is_a_usage_error(
    tmp_path: Path, name: str, content: str
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match="cannot open data set"):
        load_tasks(TasksSection(source="datasets", path=str(tmp_path / name)))
