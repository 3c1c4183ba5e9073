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
from statistics import mean
from typing import Any

from adapters_store.artefact import Artefact, read_artefact, write_artefact
from benchmarks.arms import ARMS, Arm
from benchmarks.sources import Source
from training.adapt import AdaptConfig, Taught, Teacher
from training.metrics import scores
from training.task import Task

Draw = Callable[[str, int], Task]
"""The task of that name with the few examples of a seed, dev examples to select on, and test."""


@dataclass(frozen=True)
class Comparison:
    """What is held equal over the arms. ``metrics`` are scored on test, the first one selects.

    ``kept`` are the arms whose artefacts of seed 0 stay in ``artefacts/ARM/TASK``.
    """

    config: AdaptConfig
    metrics: tuple[str, ...]
    seeds: int
    arms: tuple[Arm, ...] = ARMS
    kept: tuple[Arm, ...] = ()


def run_cells(
    names: Sequence[str],
    draw: Draw,
    teacher: Teacher,
    sources: Mapping[str, Source],
    comparison: Comparison,
    folder: Path,
) -> list[dict[str, Any]]:
    """Every run that ``folder/runs.jsonl`` does not hold yet, seed by seed; returns all there.

    Runs of arms whose source is not among ``sources`` wait for a later call.
    """
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "runs.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(row["arm"], row["task"], row["seed"]) for row in rows}
    for seed, name, arm in _cells(names, comparison):
        if (arm.name, name, seed) in done or (arm.source or "") not in ("", *sources):
            continue
        began, task = time.process_time(), draw(name, seed)
        start = sources[arm.source] if arm.source else None
        taught = learn(arm, task, teacher, start, replace(comparison.config, seed=seed))
        outputs = teacher.outputs(taught.artefact, task, start.artefact if start else None)
        row = {
            "arm": arm.name,
            "task": name,
            "seed": seed,
            "dev": taught.metrics.get("dev"),
            "loss": taught.metrics["loss"],
            "num_trained": taught.metrics["num_trained"],
            "cpu_s": round(time.process_time() - began, 2),
            "scores": test_scores(comparison.metrics, outputs, task),
        }
        rows.append(row)
        with log.open("a") as file:
            file.write(json.dumps(row) + "\n")
        shown = {metric: round(mean(found), 3) for metric, found in row["scores"].items()}
        print(arm.name, name, seed, shown, row["cpu_s"], flush=True)
        if seed == 0 and arm in comparison.kept:
            write_artefact(taught.artefact, _kept(folder, arm) / name)
    return rows


def _cells(names: Sequence[str], comparison: Comparison) -> Iterator[tuple[int, str, Arm]]:
    for seed in range(comparison.seeds):
        for name in names:
            for arm in comparison.arms:
                yield seed, name, arm


def test_scores(
    metrics: Sequence[str], outputs: Sequence[str], task: Task
) -> dict[str, list[float]]:
    """By metric, the score of every test example to four digits."""
    return {metric: [round(s, 4) for s in scores(metric, outputs, task.test)] for metric in metrics}


def learn(
    arm: Arm, task: Task, teacher: Teacher, start: Source | None, config: AdaptConfig
) -> Taught:
    """Teach ``task`` as the arm does, without a look at its test split."""
    config = replace(
        config, mode=arm.mode, init=arm.init, learning_rate=config.learning_rate * arm.rate
    )
    seen = list(start.tasks.values()) if start and arm.init != "uniform" else []
    return teacher.teach(
        replace(task, test=()), config, start.artefact if start else None, neighbours=seen
    )


def kept_artefacts(folder: Path, arm: Arm) -> dict[str, Artefact]:
    """The artefacts that :func:`run_cells` kept of one arm, by task."""
    found = sorted(_kept(folder, arm).glob("*/manifest.json"))
    return {path.parent.name: read_artefact(path.parent) for path in found}


def _kept(folder: Path, arm: Arm) -> Path:
    return folder / "artefacts" / arm.folder
