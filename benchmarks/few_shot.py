"""Few-shot comparisons: every arm learns every task under every seed; a stopped one goes on.

A run is one line of ``runs.jsonl`` with the score of every test example, so that arms can be
compared pair by pair.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from adapters_store.artefact import Artefact, read_artefact, write_artefact
from benchmarks.arms import ARMS, Arm
from training.adapt import AdaptConfig, Teacher
from training.metrics import scores
from training.publish import run_artefacts
from training.recipe import MethodSection, Recipe
from training.run import Run
from training.significance import Difference, paired_bootstrap
from training.task import Task

Draw = Callable[[str, int], Task]
"""The task of that name with the few examples of a seed, dev examples to select on, and test."""


@dataclass(frozen=True)
class Comparison:
    """What is held equal over the arms. ``metrics`` are scored on test, the first one selects."""

    config: AdaptConfig
    metrics: tuple[str, ...]
    seeds: int
    arms: tuple[Arm, ...] = ARMS


def source(
    method: MethodSection, recipe: Recipe, seen: Sequence[Task], folder: Path, teacher: Teacher
) -> Artefact:
    """The bank or shared adapter that a pretraining run gives; runs or resumes it where needed."""
    kept = folder / "artefact"
    if not kept.exists():
        run = Run.build(recipe.model_copy(update={"method": method}), list(seen))
        run.train(folder, report=lambda record: print(folder.name, record, flush=True))
        bank, tasks = run_artefacts(run, folder, teacher.backbone)
        write_artefact(bank or tasks[seen[0].name], kept)
    return read_artefact(kept)


def sources(
    methods: Mapping[str, MethodSection],
    recipe: Recipe,
    seen: Sequence[Task],
    folder: Path,
    teacher: Teacher,
) -> dict[str, Artefact]:
    """Every pretrained source by name; each runs, or resumes, where it is not finished."""
    return {
        name: source(method, recipe, seen, folder / name, teacher)
        for name, method in methods.items()
    }


def run_cells(
    names: Sequence[str],
    draw: Draw,
    teacher: Teacher,
    sources: Mapping[str, Artefact],
    comparison: Comparison,
    folder: Path,
    *,
    deadline_s: float | None = None,
) -> list[dict[str, Any]]:
    """Every run that ``folder/runs.jsonl`` does not hold yet, seed by seed; returns all there."""
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "runs.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(row["arm"], row["task"], row["seed"]) for row in rows}
    began = time.monotonic()
    for seed, name, arm in _cells(names, comparison):
        if (arm.name, name, seed) in done or (arm.source or "") not in ("", *sources):
            continue
        if deadline_s is not None and time.monotonic() - began > deadline_s:
            break
        bank = sources[arm.source] if arm.source else None
        config = replace(comparison.config, seed=seed)
        row = _learn(arm, draw(name, seed), teacher, bank, config, comparison.metrics)
        rows.append(row)
        with log.open("a") as file:
            file.write(json.dumps(row) + "\n")
        shown = {k: round(mean(v), 3) for k, v in row["scores"].items()}
        print(arm.name, name, seed, shown, row["seconds"], flush=True)
    return rows


def _cells(names: Sequence[str], comparison: Comparison) -> Iterator[tuple[int, str, Arm]]:
    for seed in range(comparison.seeds):
        for name in names:
            for arm in comparison.arms:
                yield seed, name, arm


def _learn(
    arm: Arm,
    task: Task,
    teacher: Teacher,
    bank: Artefact | None,
    config: AdaptConfig,
    metrics: Sequence[str],
) -> dict[str, Any]:
    began = time.monotonic()
    chosen = replace(config, mode=arm.mode)
    taught = teacher.teach(replace(task, test=()), chosen, bank)
    outputs = teacher.outputs(taught.artefact, task, bank)
    return {
        "arm": arm.name,
        "task": task.name,
        "seed": config.seed,
        "dev": taught.metrics.get("dev"),
        "loss": taught.metrics["loss"],
        "num_trained": taught.metrics["num_trained"],
        "seconds": round(time.monotonic() - began, 2),
        "scores": {
            metric: [round(s, 4) for s in scores(metric, outputs, task.test)] for metric in metrics
        },
    }


def means(rows: Sequence[dict[str, Any]], metric: str) -> list[dict[str, Any]]:
    """Per arm: the mean over tasks of each seed's score, its deviation over seeds, and sizes."""
    lines = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        chosen = [row for row in rows if row["arm"] == arm]
        seeds = sorted({row["seed"] for row in chosen})
        by_seed = [
            mean(mean(row["scores"][metric]) for row in chosen if row["seed"] == seed)
            for seed in seeds
        ]
        lines.append(
            {
                "arm": arm,
                "metric": metric,
                "mean": mean(by_seed),
                "deviation": stdev(by_seed) if len(by_seed) > 1 else 0.0,
                "seeds": len(seeds),
                "runs": len(chosen),
                "num_trained": chosen[0]["num_trained"],
            }
        )
    return lines


def difference(
    rows: Sequence[dict[str, Any]], first: str, second: str, metric: str
) -> Difference | None:
    """The first arm minus the second over the runs that both have, paired example by example.

    Seeds share their test examples, so an example's score is its mean over the seeds: counting it
    once per seed would make the interval too narrow.
    """
    by_arm = [
        {(r["task"], r["seed"]): r["scores"][metric] for r in rows if r["arm"] == arm}
        for arm in (first, second)
    ]
    both = sorted(by_arm[0].keys() & by_arm[1].keys())
    if not both:
        return None
    groups = [
        [
            [mean(s) for s in zip(*(arm[key] for key in both if key[0] == task), strict=True)]
            for task in dict.fromkeys(key[0] for key in both)
        ]
        for arm in by_arm
    ]
    return paired_bootstrap(*groups)


def differences(
    rows: Sequence[dict[str, Any]], pairs: Sequence[tuple[str, str]], metric: str
) -> list[dict[str, Any]]:
    """One line per pair of arms that both ran: the mean difference and its 95 % interval."""
    lines = []
    for first, second in pairs:
        found = difference(rows, first, second, metric)
        if found is not None:
            name = f"{first} - {second}"
            interval = {"mean": found.mean, "low": found.low, "high": found.high}
            lines.append({"arm": name, "metric": metric, **interval})
    return lines


def task_table(rows: Sequence[dict[str, Any]], metric: str) -> list[dict[str, Any]]:
    """Per task and arm: the mean over the seeds there are."""
    keys = dict.fromkeys((row["task"], row["arm"]) for row in rows)
    return [
        {
            "task": task,
            "arm": arm,
            "mean": mean(
                mean(r["scores"][metric]) for r in rows if (r["task"], r["arm"]) == (task, arm)
            ),
        }
        for task, arm in keys
    ]
