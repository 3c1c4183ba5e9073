"""Gradient alignment between training tasks while LoRA, Poly and MHR are pretrained.

On the generated suite with the bundled backbone frozen; every 60 steps each of 16 fixed tasks gives
the gradient of its own loss on 8 rows, and the mean cosine over pairs is recorded. Measurements are
kept in ``runs/alignment``: a benchmark that was stopped goes on after the last finished method.
"""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from benchmarks.report import Report
from benchmarks.suite import SITES, recipe, seen_tasks
from training.alignment import gradient_alignment
from training.loop import fit
from training.recipe import MethodSection
from training.run import Run
from training.sampler import TaskBalancedSampler
from training.significance import pair_bootstrap

FOLDER = Path("runs") / "alignment"
STEPS, EVERY, SEEDS = 480, 60, 1
NUM_TASKS, NUM_ROWS = 16, 8
METHODS = {
    "shared LoRA": MethodSection(name="lora", rank=8, sites=SITES),
    "Poly": MethodSection(name="poly", rank=8, num_skills=8, sites=SITES),
    "MHR": MethodSection(name="mhr", rank=8, num_skills=8, num_heads=4, sites=SITES),
}
PAIRS = (("MHR", "shared LoRA"), ("Poly", "shared LoRA"), ("MHR", "Poly"))
VIEWS = ("shared", "composed")

Measurement = dict[str, Any]
"""Step, loss, and per view the mean cosine and the cosine of every pair of tasks."""


def measure(name: str, steps: int, every: int, seed: int) -> list[Measurement]:
    """The measurements of one method's pretraining run, the first before any step."""
    tasks = seen_tasks()
    chosen = recipe(steps)
    update = {"eval_every": every, "log_every": every, "seed": seed}
    train = chosen.train.model_copy(update=update)
    run = Run.build(chosen.model_copy(update={"method": METHODS[name], "train": train}), tasks)
    probe = [[(t, tasks[t].train[i]) for i in range(NUM_ROWS)] for t in range(NUM_TASKS)]

    def evaluate(step: int) -> Measurement:
        found = gradient_alignment(run.model, run.objective, probe)
        pairs = {"shared": found.pairs.tolist(), "composed": found.composed_pairs.tolist()}
        return {"shared": found.shared, "composed": found.composed, "pairs": pairs}

    made: list[Measurement] = [{"step": 0, "loss": None, **evaluate(0)}]
    sampler = TaskBalancedSampler(tasks, train.rows_per_step, train.seed)

    def report(record: dict[str, Any]) -> None:
        made.append({key: record[key] for key in ("step", "loss", *VIEWS, "pairs")})
        print(name, seed, {k: v for k, v in made[-1].items() if k != "pairs"}, flush=True)

    fit(run.model, run.objective, sampler, train, evaluate=evaluate, report=report)
    return made


def measured(name: str, steps: int, every: int, seed: int, folder: Path) -> list[Measurement]:
    """The measurements kept in ``folder``, made first where there are none."""
    path = folder / f"{name.lower().replace(' ', '-')}-{seed}.json"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(measure(name, steps, every, seed)))
    found: list[Measurement] = json.loads(path.read_text())
    return found


def late_pairs(runs: list[list[Measurement]], view: str) -> list[list[float]]:
    """Cosines of every pair of tasks (N, N), the mean of the second half of all runs."""
    late = [row["pairs"][view] for rows in runs for row in rows[len(rows) // 2 :]]
    found: list[list[float]] = np.mean(late, axis=0).tolist()
    return found


def run(*, quick: bool) -> Report:
    """All three methods over whole runs; ``quick`` takes four steps of each."""
    if not quick:
        return _run(FOLDER, steps=STEPS, every=EVERY, seeds=SEEDS)
    with TemporaryDirectory() as folder:
        return _run(Path(folder), steps=4, every=2, seeds=1)


def _run(folder: Path, *, steps: int, every: int, seeds: int) -> Report:
    config = {"steps": steps, "tasks": NUM_TASKS, "rows": NUM_ROWS, "seeds": seeds}
    report = Report("alignment", config)
    by_method: dict[str, list[list[Measurement]]] = {name: [] for name in METHODS}
    for seed in range(seeds):
        for name, runs in by_method.items():
            runs.append(measured(name, steps, every, seed, folder))
    for name, runs in by_method.items():
        for at in zip(*runs, strict=True):
            line = {"method": name, "step": at[0]["step"], "loss": at[-1]["loss"]}
            if line["loss"] is not None:
                line["loss"] = float(np.mean([row["loss"] for row in at]))
            for view in VIEWS:
                line[view] = float(np.mean([row[view] for row in at]))
            report.rows.append(line)
        for view in VIEWS:
            square = np.asarray(late_pairs(runs, view))
            key = f"{name.lower().replace(' ', '_')}_{view}"
            report.ratios[key] = float(square[~np.eye(len(square), dtype=bool)].mean())
    for first, second in PAIRS:
        for view in VIEWS:
            left, right = (late_pairs(by_method[name], view) for name in (first, second))
            found = pair_bootstrap(left, right)
            key = f"{first} - {second} {view}".lower().replace(" ", "_")
            report.ratios |= {key: found.mean, f"{key}_low": found.low, f"{key}_high": found.high}
    return report
