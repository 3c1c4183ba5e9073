"""Held-out tasks without a single example: uniform routing, trained on, against a shared LoRA.

A bank's uniform average, like a shared LoRA, is one adapter; both may train on for some steps on
the multi-task mix of the seen tasks before they meet a task of which they see only inputs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from benchmarks.few_shot import Comparison, Draw, test_scores
from benchmarks.sources import Source
from training.adapt import Teacher
from training.evaluation import predictions
from training.injection import eject
from training.library import arrow_model
from training.loop import fit
from training.model import AdaptedModel
from training.recipe import TrainSection
from training.sampler import TaskBalancedSampler
from training.starts import Mode, start
from training.task import Task


@dataclass(frozen=True)
class ZeroShot:
    """A name in the tables, its source, and what is made of it before the tasks are met.

    ``mode`` None routes a library token by token (Arrow); ``is_trained_on`` adds steps on the mix.
    """

    name: str
    source: str
    mode: Mode | None
    is_trained_on: bool = False


ARMS = (
    ZeroShot("shared LoRA", "lora", "lora"),
    ZeroShot("Poly uniform", "poly", "mu"),
    ZeroShot("MHR uniform", "mhr", "mu"),
    ZeroShot("shared LoRA + steps", "lora", "lora", is_trained_on=True),
    ZeroShot("Poly-mu + steps", "poly", "mu", is_trained_on=True),
    ZeroShot("MHR-mu + steps", "mhr", "mu", is_trained_on=True),
    ZeroShot("library average", "library", "mu"),
    ZeroShot("Arrow", "library", None),
)
PAIRS = (
    ("MHR uniform", "shared LoRA"),
    ("MHR-mu + steps", "shared LoRA"),
    ("MHR-mu + steps", "shared LoRA + steps"),
    ("MHR-mu + steps", "Poly-mu + steps"),
    ("MHR-mu + steps", "MHR uniform"),
    ("Poly-mu + steps", "shared LoRA + steps"),
    ("Arrow", "library average"),
    ("Arrow", "shared LoRA"),
)


def run_arms(
    names: Sequence[str],
    draw: Draw,
    seen: Sequence[Task],
    teacher: Teacher,
    sources: Mapping[str, Source],
    comparison: Comparison,
    train: TrainSection,
    folder: Path,
) -> list[dict[str, Any]]:
    """Every run that ``folder/zero_shot.jsonl`` does not hold yet; returns all that are there.

    ``train`` is the training on the mix; an arm without it runs once and counts for every seed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "zero_shot.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(row["arm"], row["seed"]) for row in rows}
    for arm, seeds in _runs(comparison.seeds):
        if (arm.name, seeds[0]) in done:
            continue
        section = train.model_copy(update={"seed": seeds[0]}) if arm.is_trained_on else None
        tasks = [draw(name, 0) for name in names]
        answered = _answered(arm, tasks, seen, teacher, sources[arm.source], comparison, section)
        made = [{**row, "seed": seed} for seed in seeds for row in answered]
        rows += made
        with log.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in made)
        metric = comparison.metrics[0]
        shown = round(mean(mean(row["scores"][metric]) for row in made), 3)
        print(arm.name, *seeds, shown, flush=True)
    return rows


def _runs(num_seeds: int) -> Iterator[tuple[ZeroShot, tuple[int, ...]]]:
    for seed in range(num_seeds):
        yield from ((arm, (seed,)) for arm in ARMS if arm.is_trained_on)
    yield from ((arm, tuple(range(num_seeds))) for arm in ARMS if not arm.is_trained_on)


def _answered(
    arm: ZeroShot,
    tasks: Sequence[Task],
    seen: Sequence[Task],
    teacher: Teacher,
    source: Source,
    comparison: Comparison,
    train: TrainSection | None,
) -> list[dict[str, Any]]:
    torch.manual_seed(train.seed if train else 0)
    if arm.mode is None:
        model = arrow_model(teacher.model, teacher.backbone, source.artefact)
    else:
        methods = start(teacher.backbone, arm.mode, source.artefact, (), comparison.config.rank)
        sites = [teacher.backbone.sites[name] for name in methods]
        model = AdaptedModel(teacher.model, sites, methods).eval()
    num_trained = model.num_trained() if train else 0
    try:
        objective = teacher.objective(seen[0], comparison.config)
        if train:
            sampler = TaskBalancedSampler(seen, train.rows_per_step, train.seed)
            fit(model, objective, sampler, train)
        found = [predictions(model, objective, 0, task.test) for task in tasks]
    finally:
        eject(teacher.model, model.sites)
    return [
        {
            "arm": arm.name,
            "task": task.name,
            "num_trained": num_trained,
            "scores": test_scores(comparison.metrics, outputs, task),
        }
        for task, outputs in zip(tasks, found, strict=True)
    ]
