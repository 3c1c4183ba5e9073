"""Real input: a pretrained encoder, 12 training tasks, 5 few-shot tasks, every way to learn them.

Everything is kept in ``runs/textcls``: a benchmark that was stopped goes on where it ended.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import textcls_data as data
from benchmarks.arms import PAIRS
from benchmarks.comparisons import differences, means, task_table
from benchmarks.few_shot import kept_artefacts, run_cells
from benchmarks.report import Report
from benchmarks.sources import sources
from benchmarks.textcls_arms import (
    FEW_STEPS,
    MANY_STEPS,
    METHODS,
    NUM_SELECT,
    NUM_TEST,
    RANK,
    RATES,
    SERVED_ARM,
    STEPS,
    comparison,
    drawing,
    recipe,
)
from benchmarks.textcls_served import compare
from training.adapt import Teacher
from training.task import Task

FOLDER = Path("runs") / "textcls"
SEEDS = 3


def tables(rows: Sequence[dict[str, Any]], examples: str) -> list[dict[str, Any]]:
    """Means, paired differences and scores by task of the runs with so many examples."""
    found = means(rows, "exact_match")
    found += differences(rows, PAIRS, "exact_match")
    found += task_table(rows, "exact_match")
    return [{"examples": examples, **line} for line in found]


def floors(tasks: Sequence[Task]) -> list[dict[str, Any]]:
    """The share of the commonest label on each task's whole test split."""
    return [{"task": task.name, "majority": round(data.majority(task), 3)} for task in tasks]


def run(*, quick: bool) -> Report:
    """The whole comparison; ``quick`` takes a step or two of everything and serves nothing."""
    if not quick:
        return _run(FOLDER, STEPS, FEW_STEPS, MANY_STEPS, SEEDS, is_served=True)
    with TemporaryDirectory() as folder:
        return _run(Path(folder), 2, 2, 2, 1, is_served=False, names=("copa",))


def _run(
    folder: Path,
    steps: int,
    few_steps: int,
    many_steps: int,
    seeds: int,
    *,
    is_served: bool,
    names: Sequence[str] | None = None,
) -> Report:
    teacher = Teacher.open(data.backbone_folder())
    seen, few = data.load(teacher.tokenizer)
    few = [task for task in few if names is None or task.name in names]
    made = sources(METHODS, recipe(steps), seen, folder, teacher.backbone, rates=RATES)
    config = {
        "backbone": "all-MiniLM-L6-v2",
        "max_tokens": data.MAX_TOKENS,
        "bank_steps": steps,
        "rank": RANK,
        "select_on": NUM_SELECT,
        "test_on": NUM_TEST,
        "seeds": seeds,
    }
    report = Report("textcls", config, rows=floors(few))
    for shots, part in ((data.SHOTS, folder), (None, folder / "all")):
        chosen = comparison(few_steps if shots else many_steps, seeds, is_few=shots is not None)
        names = [task.name for task in few]
        rows = run_cells(names, drawing(few, shots), teacher, made, chosen, part)
        report.rows += tables(rows, str(shots or "all"))
        if shots:
            report.ratios = {
                f"{line['arm']}_{shots}".replace(" ", "_"): line["mean"]
                for line in means(rows, "exact_match")
            }
    if is_served:
        routings = {**made["mhr"].tasks, **kept_artefacts(folder, SERVED_ARM)}
        bank = made["mhr"].artefact
        served = compare(folder / "store", teacher, bank, routings, [*seen, *few])
        report.ratios["served_labels_differing"] = sum(r["labels_differing"] for r in served)
        report.ratios["served_tasks"] = len(served)
        (folder / "served.json").write_text(json.dumps(served, indent=2) + "\n")
    return report
