"""A study end to end on a tiny backbone: every arm, every pair, and going on where it stopped."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from training_kit import tiny_recipe

from benchmarks import zero_shot
from benchmarks.arms import ARMS, LIBRARY_ARMS, PAIRS, START_ARMS, STARTS, pretraining
from benchmarks.few_shot import Comparison, kept_artefacts, learn
from benchmarks.sources import sources
from benchmarks.study import Study, quickened, run_parts
from training.adapt import AdaptConfig, Teacher
from training.inits import INITS
from training.publish import run_backbone
from training.recipe import BackboneSection, TasksSection
from training.run import Run, read_recipe
from training.sources import load_tasks, suite_task

SITES = ("self.q", "ffn.out")
FEW_SHOT_ARMS = (*ARMS, *START_ARMS, *LIBRARY_ARMS)
MHR_Z = next(arm for arm in ARMS if arm.name == "MHR-z")


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Study:
    folder = tmp_path_factory.mktemp("study")
    run = Run.build(tiny_recipe())
    backbone = run_backbone(run, folder)
    recipe = tiny_recipe(steps=2).model_copy(
        update={"backbone": BackboneSection(source=str(backbone.folder))}
    )
    section = TasksSection(names=("kv-city", "phrase-snake"), num_train=8, num_dev=2, num_test=0)
    config = AdaptConfig(
        init="uniform",
        steps=2,
        rows_per_step=4,
        eval_every=1,
        rank=2,
        sites=SITES,
        max_output_tokens=16,
    )
    return Study(
        name="tiny",
        folder=folder / "runs",
        seen=load_tasks(section),
        names=("us-date-iso",),
        draw=lambda name, seed: suite_task(
            name, TasksSection(num_train=6, num_dev=2, num_test=3, seed=seed)
        ),
        methods=pretraining(2, 3, 4, SITES, has_cross=True),
        recipe=recipe,
        comparison=Comparison(config, ("rouge_l", "exact_match"), seeds=2, kept=(MHR_Z,)),
        sizes={"examples": 6, "dev": 2, "test": 3},
        zero_shot_steps=2,
    )


@pytest.fixture(scope="module")
def teacher(study: Study) -> Teacher:
    return Teacher.open(Path(study.recipe.backbone.source or ""))


@pytest.fixture(scope="module")
def report(study: Study, teacher: Teacher):
    return run_parts(study, teacher)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_arm_learns_every_task_under_every_seed(study, report) -> None:
    found = [(row["arm"], row["task"], row["seed"]) for row in lines(study.folder / "runs.jsonl")]
    assert len(found) == len(set(found)) == len(FEW_SHOT_ARMS) * 2
    assert {arm for arm, _, _ in found} == {arm.name for arm in FEW_SHOT_ARMS}
    few = [row for row in report.rows if row["part"] == "few-shot"]
    assert {row["metric"] for row in few} == {"rouge_l", "exact_match"}
    assert all(row["seeds"] == 2 and row["runs"] == 2 for row in few)
    assert set(report.ratios) == {f"rouge_l_{arm.folder}" for arm in FEW_SHOT_ARMS}


def test_every_pair_has_an_interval_around_its_mean(report) -> None:
    found = [row for row in report.rows if row["part"].endswith("difference")]
    names = {row["arm"] for row in found}
    assert {f"{first} - {second}" for first, second in (*PAIRS, *zero_shot.PAIRS)} <= names
    assert {f"MHR-z {name} - MHR-z" for name in INITS} <= names
    assert all(row["low"] <= row["mean"] <= row["high"] for row in found)


def test_arms_without_examples_count_once_for_every_seed_unless_they_train(study, report) -> None:
    rows = lines(study.folder / "zero_shot.jsonl")
    assert len(rows) == len(zero_shot.ARMS) * 2
    for arm in zero_shot.ARMS:
        chosen = [row for row in rows if row["arm"] == arm.name]
        assert all((row["num_trained"] > 0) == arm.is_trained_on for row in chosen)
        if not arm.is_trained_on:
            first, second = ([r["scores"] for r in chosen if r["seed"] == s] for s in (0, 1))
            assert first == second


def test_a_stopped_study_goes_on_to_the_same_numbers(study, teacher, report) -> None:
    logs = [study.folder / name for name in ("runs.jsonl", "zero_shot.jsonl")]
    whole = [path.read_text() for path in logs]
    for path, text in zip(logs, whole, strict=True):
        path.write_text("".join(text.splitlines(keepends=True)[:-2]))
    again = run_parts(study, teacher)
    assert again.rows == report.rows
    timeless = [{k: v for k, v in row.items() if k != "cpu_s"} for row in lines(logs[0])]
    before = [
        {k: v for k, v in json.loads(x).items() if k != "cpu_s"} for x in whole[0].split("\n")[:-1]
    ]
    assert timeless == before


def test_kept_artefacts_are_of_the_first_seed_of_the_named_arms(study, report) -> None:
    found = kept_artefacts(study.folder, MHR_Z)
    assert set(found) == set(study.names)
    assert {one.manifest.kind for one in found.values()} == {"routing"}
    assert kept_artefacts(study.folder, ARMS[0]) == {}


def test_sources_keep_the_seen_tasks_routings_and_their_own_rates(study, teacher, report) -> None:
    made = sources(study.methods, study.recipe, study.seen, study.folder, teacher.backbone)
    names = {task.name for task in study.seen}
    assert all(set(one.tasks) == names for one in made.values())
    bank = made["mhr"].artefact
    assert all(one.manifest.bank == bank.digest for one in made["mhr"].tasks.values())
    rates = {n: read_recipe(study.folder / n).train.learning_rate for n in study.methods}
    assert rates["ia3"] == pytest.approx(30 * rates["lora"])
    assert rates["poly"] == rates["mhr"] == rates["random"] == rates["lora"]


def test_the_test_split_decides_nothing(study, teacher, report) -> None:
    made = sources(study.methods, study.recipe, study.seen, study.folder, teacher.backbone)
    task = study.draw("us-date-iso", 0)
    config = study.comparison.config
    first = learn(MHR_Z, task, teacher, made["mhr"], config)
    second = learn(MHR_Z, replace(task, test=task.train), teacher, made["mhr"], config)
    assert "test" not in first.metrics
    assert first.artefact.data == second.artefact.data


def test_the_quick_form_is_one_task_and_two_steps_of_everything(study, tmp_path) -> None:
    quick = quickened(study, tmp_path)
    assert (quick.names, quick.comparison.seeds) == (study.names[:1], 1)
    steps = (quick.recipe.train.steps, quick.comparison.config.steps, quick.zero_shot_steps)
    assert steps == (2, 2, 2)
    assert quick.config["quick"] is True


def test_every_routing_start_is_an_arm_in_both_modes() -> None:
    assert set(STARTS) == set(INITS)
    assert {(arm.mode, arm.init) for arm in START_ARMS} == {
        (mode, init) for mode in ("z", "full") for init in INITS
    }
