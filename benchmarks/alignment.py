"""Gradient alignment between training tasks while LoRA, Poly and MHR are pretrained.

On the generated suite with the bundled backbone frozen; every 60 steps each of 16 fixed tasks gives
the gradient of its own loss on 8 rows, and the mean cosine over pairs is recorded.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.report import Report
from benchmarks.suite import SITES, recipe, seen_tasks
from training.alignment import gradient_alignment
from training.loop import fit
from training.recipe import MethodSection
from training.run import Run
from training.sampler import TaskBalancedSampler

FOLDER = Path("runs") / "alignment"
STEPS, EVERY = 480, 60
NUM_TASKS, NUM_ROWS = 16, 8
METHODS = {
    "shared LoRA": MethodSection(name="lora", rank=8, sites=SITES),
    "Poly": MethodSection(name="poly", rank=8, num_skills=8, sites=SITES),
    "MHR": MethodSection(name="mhr", rank=8, num_skills=8, num_heads=4, sites=SITES),
}


def measure(name: str, steps: int, every: int) -> list[dict[str, Any]]:
    """One row per measurement of a method's pretraining run."""
    tasks = seen_tasks()
    chosen = recipe(steps)
    train = chosen.train.model_copy(update={"eval_every": every, "log_every": every})
    run = Run.build(chosen.model_copy(update={"method": METHODS[name], "train": train}), tasks)
    probe = [[(t, tasks[t].train[i]) for i in range(NUM_ROWS)] for t in range(NUM_TASKS)]

    def evaluate(step: int) -> dict[str, Any]:
        found = gradient_alignment(run.model, run.objective, probe)
        return {"shared": found.shared, "composed": found.composed}

    rows = [{"method": name, "step": 0, "loss": None, **evaluate(0)}]
    sampler = TaskBalancedSampler(tasks, train.rows_per_step, train.seed)

    def report(record: dict[str, Any]) -> None:
        row = {key: record[key] for key in ("step", "loss", "shared", "composed")}
        rows.append({"method": name, **row})
        print(rows[-1], flush=True)

    fit(run.model, run.objective, sampler, train, evaluate=evaluate, report=report)
    return rows


def run(*, quick: bool) -> Report:
    """All three methods over the whole run; ``quick`` takes four steps of each."""
    steps, every = (4, 2) if quick else (STEPS, EVERY)
    report = Report("alignment", {"steps": steps, "tasks": NUM_TASKS, "rows": NUM_ROWS})
    for name in METHODS:
        rows = measure(name, steps, every)
        report.rows += rows
        key = name.lower().replace(" ", "_")
        late = rows[len(rows) // 2 :]
        report.ratios[f"{key}_shared"] = sum(row["shared"] for row in late) / len(late)
        report.ratios[f"{key}_composed"] = sum(row["composed"] for row in late) / len(late)
    return report
