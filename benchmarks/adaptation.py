"""Few-shot adaptation of the bundled backbone to its held-out tasks, and its time.

Each held-out task is a combination of known skills that no seen task has. 32 examples train for 20
steps of 16 rows in every arm, no dev split is used (the last step stands), and exact match is
counted on unseen test inputs.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from statistics import mean, median, stdev
from typing import Any

from adapters_store.artefact import Artefact, read_artefact
from benchmarks.report import Report
from patchbay import bundled
from training.adapt import AdaptConfig, Teacher
from training.recipe import TasksSection
from training.sources import suite_task
from training.suite import HELD_OUT
from training.task import Task

NUM_EXAMPLES = 32
NUM_TEST = 50
SEEDS = (0, 1, 2)
QUICK_TASKS = HELD_OUT[::4]
ROUTING_ONLY = AdaptConfig(
    mode="z", init="nearest", steps=20, rows_per_step=16, router_learning_rate=0.2
)
ARMS: dict[str, AdaptConfig] = {
    "lora": replace(ROUTING_ONLY, mode="lora", learning_rate=5e-3),
    "mhr-z": ROUTING_ONLY,
    "mhr-mu": replace(ROUTING_ONLY, mode="mu", learning_rate=5e-3),
    "mhr": replace(ROUTING_ONLY, mode="full", learning_rate=1e-3),
}


def held_out(name: str, seed: int) -> Task:
    """A held-out task with its few examples drawn by ``seed``; the test inputs are always those."""
    drawn = suite_task(name, TasksSection(num_train=NUM_EXAMPLES, num_dev=0, seed=seed))
    fixed = suite_task(name, TasksSection(num_train=1, num_dev=0, num_test=NUM_TEST))
    return replace(drawn, test=fixed.test)


def measure(
    names: Sequence[str], arms: Sequence[str], seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """One row per task, arm and seed: exact match, seconds in all, trained parameters."""
    teacher = Teacher.open(bundled.BACKBONE_FOLDER)
    bank = read_artefact(bundled.BANK_FOLDER)
    folders = [bundled.ROUTING_FOLDER / name for name in bundled.task_names()]
    neighbours = [read_artefact(folder) for folder in folders]
    rows: list[dict[str, Any]] = []
    for name in names:
        for seed in seeds:
            task = held_out(name, seed)
            rows += [
                _teach(teacher, task, arm, replace(ARMS[arm], seed=seed), bank, neighbours)
                for arm in arms
            ]
        rows.append(
            {
                "task": name,
                "arm": "zero-shot",
                "seed": 0,
                "exact_match": teacher.untaught_score(held_out(name, 0), bank),
                "seconds": 0.0,
                "num_trained": 0,
            }
        )
    return rows


def _teach(
    teacher: Teacher,
    task: Task,
    arm: str,
    config: AdaptConfig,
    bank: Artefact,
    neighbours: list[Artefact],
) -> dict[str, Any]:
    began = time.monotonic()
    source = None if config.mode == "lora" else bank
    taught = teacher.teach(replace(task, test=()), config, source, neighbours)
    seconds = time.monotonic() - began
    return {
        "task": task.name,
        "arm": arm,
        "seed": config.seed,
        "exact_match": teacher.score(taught.artefact, task, bank),
        "seconds": round(seconds, 2),
        "num_trained": taught.metrics["num_trained"],
    }


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per arm: the mean over tasks of each seed's score, and the deviation over seeds."""
    lines = []
    for arm in dict.fromkeys(row["arm"] for row in rows):
        chosen = [row for row in rows if row["arm"] == arm]
        seeds = sorted({row["seed"] for row in chosen})
        means = [mean(r["exact_match"] for r in chosen if r["seed"] == seed) for seed in seeds]
        lines.append(
            {
                "arm": arm,
                "mean": mean(means),
                "deviation": stdev(means) if len(means) > 1 else 0.0,
                "seconds": median(row["seconds"] for row in chosen),
                "num_trained": chosen[0]["num_trained"],
            }
        )
    return lines


def run(*, quick: bool) -> Report:
    """The routing-only figures, and with every arm and seed unless ``quick``."""
    names = QUICK_TASKS if quick else HELD_OUT
    arms = ["mhr-z"] if quick else list(ARMS)
    rows = measure(names, arms, SEEDS[:1] if quick else SEEDS)
    report = Report(
        "adaptation",
        {"tasks": len(names), "examples": NUM_EXAMPLES, "test": NUM_TEST, "arms": len(arms)},
        rows=[*rows, *summary(rows)],
    )
    routed = [row for row in rows if row["arm"] == "mhr-z"]
    before = [row["exact_match"] for row in rows if row["arm"] == "zero-shot"]
    report.ratios = {
        "seconds_per_task": median(row["seconds"] for row in routed),
        "accuracy_before": median(before),
        "accuracy_after": median(row["exact_match"] for row in routed),
    }
    return report
