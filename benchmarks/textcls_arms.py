"""The six ways to learn a few-shot task that the ``textcls`` benchmark compares."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters_store.artefact import Artefact, read_artefact, write_artefact
from benchmarks import textcls_data as data
from benchmarks.arms import Arm
from training.adapt import AdaptConfig, Taught, Teacher
from training.task import Task

FEW_STEPS, MANY_STEPS = 20, 50
NUM_SELECT = 50
NUM_TEST = 200


ARMS = (
    Arm("MHR-z", "z", "mhr"),
    Arm("MHR-mu", "mu", "mhr"),
    Arm("MHR", "full", "mhr"),
    Arm("private LoRA", "lora", None),
    Arm("shared LoRA", "lora", "lora"),
    Arm("Poly", "full", "poly"),
)


@dataclass(frozen=True)
class Cell:
    """One run of the comparison: ``shots`` None means every training example."""

    arm: Arm
    task: str
    shots: int | None
    seed: int

    @property
    def key(self) -> tuple[str, str, int | None, int]:
        """What identifies the run in the results."""
        return self.arm.name, self.task, self.shots, self.seed


def cells(tasks: list[str], seeds: int) -> Iterator[Cell]:
    """All runs, 32 examples first: a benchmark that is stopped keeps whole seeds."""
    for shots in (data.SHOTS, None):
        for seed in range(seeds):
            for task in tasks:
                for arm in ARMS:
                    yield Cell(arm, task, shots, seed)


def config(cell: Cell, rank: int) -> AdaptConfig:
    """The optimisation, the same for every arm but for what is trained."""
    steps = FEW_STEPS if cell.shots else MANY_STEPS
    return AdaptConfig(
        mode=cell.arm.mode,
        steps=steps,
        rows_per_step=8,
        learning_rate=5e-3,
        router_learning_rate=0.1,
        eval_every=steps // 2,
        eval_examples=NUM_SELECT,
        rank=rank,
        max_input_tokens=data.MAX_TOKENS,
        max_output_tokens=1,
        seed=cell.seed,
    )


def learn(
    cell: Cell, task: Task, teacher: Teacher, sources: Mapping[str, Artefact], rank: int
) -> Taught:
    """Run one cell: train, select on the first dev examples, score on the first test ones."""
    shown = dataclasses.replace(
        task,
        train=data.draw(task, cell.shots, cell.seed),
        test=task.test[:NUM_TEST],
    )
    source = sources[cell.arm.source] if cell.arm.source else None
    return teacher.teach(shown, config(cell, rank), source)


def run_cells(
    tasks: list[Task],
    teacher: Teacher,
    sources: Mapping[str, Artefact],
    folder: Path,
    *,
    rank: int,
    seeds: int,
    deadline_s: float | None = None,
) -> list[dict[str, Any]]:
    """Every cell that ``folder/runs.jsonl`` does not hold yet; returns all that are there.

    Cells whose source is not among ``sources`` wait for a later call. Artefacts of the 32-example
    runs of seed 0 are kept in ``folder/artefacts/ARM/TASK``.
    """
    log = folder / "runs.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    done = {(row["arm"], row["task"], row["shots"], row["seed"]) for row in rows}
    by_name = {task.name: task for task in tasks}
    began = time.monotonic()
    for cell in cells(list(by_name), seeds):
        if cell.key in done or (cell.arm.source or "") not in ("", *sources):
            continue
        if deadline_s is not None and time.monotonic() - began > deadline_s:
            break
        started = time.process_time()
        taught = learn(cell, by_name[cell.task], teacher, sources, rank)
        row = {
            "arm": cell.arm.name,
            "task": cell.task,
            "shots": cell.shots,
            "seed": cell.seed,
            "dev": taught.metrics["dev"],
            "test": taught.metrics["test"],
            "loss": taught.metrics["loss"],
            "num_trained": taught.metrics["num_trained"],
            "cpu_s": round(time.process_time() - started, 2),
        }
        rows.append(row)
        with log.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)
        if cell.shots == data.SHOTS and cell.seed == 0:
            write_artefact(taught.artefact, folder / "artefacts" / cell.arm.folder / cell.task)
    return rows


def kept_artefacts(folder: Path, arm: Arm) -> dict[str, Artefact]:
    """The artefacts that :func:`run_cells` kept of one arm, by task."""
    return {
        path.parent.name: read_artefact(path)
        for path in sorted((folder / "artefacts" / arm.folder).glob("*/manifest.json"))
    }
