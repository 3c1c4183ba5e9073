"""The commands: train, resume, ls, publish, adapt and eval, over one tiny run."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from published_kit import Published
from store_kit import low_rank
from training_kit import tiny_recipe

from adapters_store.artefact import write_artefact
from adapters_store.errors import (
    ConflictError,
    NotFoundError,
    PatchbayError,
    TrainingError,
    UsageError,
)
from adapters_store.store import Store
from training import checkpoint
from training.cli import publish, train
from training.cli_adapt import adapt, evaluate
from training.evaluation import artefact_outputs
from training.lookup import find_artefact
from training.suite import Example, generate


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
    resumed = CliRunner().invoke(train, ["resume", str(folder)])
    assert (json.loads(resumed.stdout), resumed.exit_code) == (told, 0)
    assert "the run is complete: step 2 was its last" in resumed.stderr
    assert json.loads((folder / "outcome.json").read_text())["loss"] == told["loss"]
    with pytest.raises(ConflictError, match="already holds a run"):
        invoke(train, "run", recipe_file, "--out", folder)
    printed = invoke(publish, folder, "--tenant", "acme", "--store", store, "--form", "adapter")
    assert [line.split()[-1] for line in printed.splitlines()] == ["adapter"] * 3
    assert (folder / "backbone" / "config.json").is_file()
    again = CliRunner().invoke(publish, [str(folder), "--tenant", "acme", "--store", str(store)])
    assert f"serve it too: patchbay serve --backbone {folder / 'backbone'}" in again.stderr


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


def write_json(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A JSON Lines file of these rows."""
    path.write_text("\n".join(map(json.dumps, rows)) + "\n")
    return path


def test_a_task_of_choices_is_ranked_where_it_is_scored_and_served_as_text(
    published: Published, tmp_path: Path
) -> None:
    rows = [
        {"input": f"is {n} even?", "output": ("no", "yes")[n % 2 == 0], "part": part}
        for part in ("train", "test")
        for n in range(6)
    ]
    listed = [row | {"choices": ["yes", "no"]} for row in rows]
    store, backbone = tmp_path / "store", published.folder / "backbone"
    common = ("--backbone", backbone, "--store", store, "--json")
    learn = (*common, "--mode", "lora", "--objective", "choice", "--steps", 2)
    for name, given, labels in (
        ("acme/listed", listed, ("yes", "no")),
        ("acme/found", rows, ("no", "yes")),
    ):
        data = write_json(tmp_path / "rows.jsonl", given)
        (row,) = json.loads(invoke(adapt, *learn, "--data", data, "--name", name))
        metrics = ("--metric", "accuracy", "--metric", "rouge_l")
        scored = json.loads(invoke(evaluate, name, *common, "--data", data, *metrics))
        assert scored["accuracy"] == row["metrics"]["test"]
        assert scored["rouge_l"] == scored["accuracy"]  # an answer is always one of the choices
        assert scored["num_examples"] == 6
        with Store.open(store) as opened:
            about = opened.resolve(name).manifest.signature
        assert about is not None
        assert (about.task, about.labels) == ("text2text", labels)
        written = invoke(evaluate, name, *common, "--data", data, "--objective", "text2text")
        assert json.loads(written)["exact_match"] == 0.0  # two steps do not teach it to write
    with pytest.raises(UsageError, match="is not scored as 'classification'"):
        invoke(evaluate, name, *common, "--data", data, "--objective", "classification")
    with pytest.raises(UsageError, match="rouge"):
        invoke(evaluate, name, *common, "--data", data, "--metric", "rouge")


def test_a_library_is_mixed_by_command(published: Published, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl", "phrase-kebab", train=4, test=2)
    store, folders = tmp_path / "store", []
    for seed in (1, 2):
        adapter = low_rank(published.backbone, seed=seed)
        folders.append(tmp_path / f"adapter{seed}")
        write_artefact(adapter, folders[-1])
    library = [word for folder in folders for word in ("--library", folder)]
    backbone = ("--backbone", published.folder / "backbone", "--store", store, "--json")
    learn = (*backbone, "--data", data, "--steps", 2)
    (soup,) = json.loads(invoke(adapt, *learn, *library, "--mode", "soup", "--name", "acme/soup"))
    routed = ("--gate", "softmax", "--granularity", "stack", "--name", "acme/mix")
    (mix,) = json.loads(invoke(adapt, *learn, *library, *routed))
    assert (soup["kind"], mix["kind"]) == ("adapter", "routing")
    assert (soup["metrics"]["num_trained"], mix["metrics"]["num_trained"]) == (2 * 2, 1 * 2)
    with Store.open(store) as opened:
        names = {version.full_name for version in opened.list(tenant="acme")}
        assert names == {"acme/soup", "acme/mix", "acme/mix-library"}
        assert opened.resolve("acme/mix").bank == opened.resolve("acme/mix-library").digest
    for row in (soup, mix):
        scored = json.loads(invoke(evaluate, f"acme/{row['name']}", *backbone, "--data", data))
        assert scored["exact_match"] == row["metrics"]["test"]
    with pytest.raises(UsageError, match="both a bank and a library"):
        invoke(adapt, *learn, *library, "--bank", folders[0], "--name", "acme/x")
    with pytest.raises(UsageError, match="--rank is a fresh adapter's; mode 'soup'"):
        invoke(adapt, *learn, *library, "--mode", "soup", "--rank", 2, "--name", "acme/x")
    with pytest.raises(UsageError, match="--learning-rate: mode 'soup' learns a mixture"):
        invoke(adapt, *learn, *library, "--mode", "soup", "--learning-rate", 1, "--name", "acme/x")
    with pytest.raises(UsageError, match="--router-learning-rate: mode 'lora' learns no mixture"):
        invoke(adapt, *learn, "--mode", "lora", "--router-learning-rate", 1, "--name", "acme/x")
    with pytest.raises(UsageError, match="has no rows of part `dev`"):
        invoke(adapt, *learn, *library, "--eval-every", 1, "--name", "acme/x")


def test_any_of_several_references_counts(published: Published, tmp_path: Path) -> None:
    backbone, store = published.folder / "backbone", tmp_path / "store"
    rows = [{"input": "a", "output": "b"}, {"input": "a", "output": "b", "part": "test"}]
    common = ("--backbone", backbone, "--store", store, "--json")
    data = write_json(tmp_path / "rows.jsonl", rows)
    invoke(adapt, *common, "--data", data, "--mode", "lora", "--steps", 1, "--name", "acme/one")
    with Store.open(store) as opened:
        artefact = find_artefact(opened, "acme/one")
    (answer,) = artefact_outputs(backbone, artefact, None, [Example("a", "b")])
    test = write_json(tmp_path / "test.jsonl", [rows[1] | {"references": ["b", answer]}])
    assert json.loads(invoke(evaluate, "acme/one", *common, "--data", test))["exact_match"] == 1.0
    for bad in ("references", "choices"):
        write_json(test, [rows[1] | {bad: "b"}])
        with pytest.raises(TrainingError, match=f"column '{bad}' holds 'b'; expected a list"):
            invoke(evaluate, "acme/one", *common, "--data", test)


@pytest.mark.parametrize(
    "option", [("--use-gpu",), ("--ray-address", "auto"), ("--max-failures", "1")]
)
def test_options_of_a_cluster_need_workers(tmp_path: Path, option: tuple[str, ...]) -> None:
    common = ["run", "bytes-small", "--out", str(tmp_path / "run")]
    refused = CliRunner().invoke(train, [*common, *option])
    assert refused.exit_code == 2
    assert "belong to --workers" in refused.output


def test_an_interrupted_command_says_how_the_run_goes_on(recipe_file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"

    def interrupt() -> None:
        while not (folder / "log.jsonl").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt, daemon=True)
    thread.start()
    arguments = ["run", recipe_file, "--out", folder, "--set", "train.steps=100000"]
    result = CliRunner().invoke(train, [str(one) for one in arguments])
    thread.join()
    step = checkpoint.latest_step(folder)
    assert result.exit_code == 1
    assert f"saved at step {step}; go on with `patchbay train resume {folder}`" in result.stderr


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


def test_adapt_refuses_long_rows_or_leaves_them_out(published: Published, tmp_path: Path) -> None:
    rows = [{"input": "a", "output": "b"}, {"input": "long " * 30, "output": "b"}]
    data = write_json(tmp_path / "rows.jsonl", rows)
    common = ("--backbone", published.folder / "backbone", "--store", tmp_path / "store", "--json")
    given = (*common, "--data", data, "--mode", "lora", "--steps", 1, "--name", "acme/one")
    with pytest.raises(TrainingError, match=r"task 'one', train row 1 \(.*line 2\): input of 151"):
        invoke(adapt, *given)
    (row,) = json.loads(invoke(adapt, *given, "--on-long-input", "drop"))
    assert row["metrics"]["rows"] == {"train_dropped": 1}
