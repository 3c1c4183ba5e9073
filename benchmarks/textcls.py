"""Real input: a pretrained encoder, 12 training tasks, 5 few-shot tasks, six ways to learn them.

Everything is kept in ``runs/textcls``: a benchmark that was stopped goes on where it ended.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory
from typing import Any

from adapters_store.artefact import Artefact, read_artefact, write_artefact
from benchmarks import textcls_data as data
from benchmarks.report import Report
from benchmarks.textcls_arms import ARMS, NUM_SELECT, NUM_TEST, kept_artefacts, run_cells
from benchmarks.textcls_banks import METHODS, RANK, STEPS, trained
from benchmarks.textcls_served import compare
from training.adapt import Teacher
from training.publish import run_artefacts
from training.task import Task

FOLDER = Path("runs") / "textcls"
SEEDS = 3


def source(
    method: str, seen: Sequence[Task], folder: Path, teacher: Teacher, steps: int
) -> tuple[Artefact, dict[str, Artefact]]:
    """What an arm starts from, the bank or the shared adapter, and the seen tasks' artefacts."""
    kept = folder / "artefact"
    names = [task.name for task in seen]
    if not kept.exists():
        bank, tasks = run_artefacts(trained(method, seen, folder, steps), folder, teacher.backbone)
        for name, artefact in tasks.items():
            write_artefact(artefact, folder / "tasks" / name)
        write_artefact(bank or tasks[names[0]], kept)
    return read_artefact(kept), {n: read_artefact(folder / "tasks" / n) for n in names}


def table(rows: Sequence[dict[str, Any]], tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """Per task, number of examples and arm: test accuracy over the seeds there are, its floor."""
    lines = []
    for task in tasks:
        for shots in (data.SHOTS, None):
            for arm in ARMS:
                key = (arm.name, task.name, shots)
                chosen = [r for r in rows if (r["arm"], r["task"], r["shots"]) == key]
                if not chosen:
                    continue
                scores = [row["test"] for row in chosen]
                lines.append(
                    {
                        "task": task.name,
                        "examples": shots or len(task.train),
                        "arm": arm.name,
                        "mean": mean(scores),
                        "deviation": stdev(scores) if len(scores) > 1 else None,
                        "seeds": len(scores),
                        "majority": round(data.majority(task), 3),
                        "num_trained": chosen[0]["num_trained"],
                    }
                )
    return lines


def averages(lines: Sequence[dict[str, Any]], tasks: Sequence[Task]) -> dict[str, float]:
    """Each arm's mean over all tasks with 32 examples, and the floor's."""
    found = {"majority": mean(data.majority(task) for task in tasks)}
    for arm in ARMS:
        key = (arm.name, data.SHOTS)
        chosen = [line["mean"] for line in lines if (line["arm"], line["examples"]) == key]
        if len(chosen) == len(tasks):
            found[arm.name] = mean(chosen)
    return {f"{name}_32".replace(" ", "_"): value for name, value in found.items()}


def run(*, quick: bool) -> Report:
    """The whole comparison; ``quick`` takes a step or two of everything and serves nothing."""
    if not quick:
        return _run(FOLDER, steps=STEPS, seeds=SEEDS, is_served=True)
    with TemporaryDirectory() as folder:
        return _run(Path(folder), steps=2, seeds=1, is_served=False, names=("copa",))


def _run(
    folder: Path,
    *,
    steps: int,
    seeds: int,
    is_served: bool,
    names: Sequence[str] | None = None,
    deadline_s: float | None = None,
) -> Report:
    folder.mkdir(parents=True, exist_ok=True)
    teacher = Teacher.open(data.backbone_folder())
    seen, few = data.load(teacher.tokenizer)
    few = [task for task in few if names is None or task.name in names]
    made = {name: source(name, seen, folder / name, teacher, steps) for name in METHODS}
    sources = {name: artefact for name, (artefact, _) in made.items()}
    rows = run_cells(few, teacher, sources, folder, rank=RANK, seeds=seeds, deadline_s=deadline_s)
    report = Report(
        "textcls",
        {
            "backbone": "all-MiniLM-L6-v2",
            "max_tokens": data.MAX_TOKENS,
            "bank_steps": steps,
            "rank": RANK,
            "select_on": NUM_SELECT,
            "test_on": NUM_TEST,
            "seeds": seeds,
        },
        rows=table(rows, few),
    )
    report.ratios = averages(report.rows, few)
    if is_served:
        routings = made["mhr"][1] | kept_artefacts(folder, ARMS[0])
        served = compare(folder / "store", teacher, sources["mhr"], routings, [*seen, *few])
        report.ratios["served_labels_differing"] = sum(r["labels_differing"] for r in served)
        report.ratios["served_tasks"] = len(served)
        (folder / "served.json").write_text(json.dumps(served, indent=2) + "\n")
    return report
