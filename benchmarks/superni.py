"""Natural instructions: banks on 60 training tasks, nine few-shot test tasks.

The backbone is the bundled byte-level one, frozen; it never saw English. An input is the task's
definition and the instance, each cut so that a CPU can train on it. The data is an extract of
Super-NaturalInstructions (Wang et al. 2022) that lies outside the project: ``PATCHBAY_SUPERNI``
names its folder. Everything is kept in ``runs/superni``: a benchmark that was stopped goes on.
"""

from __future__ import annotations

import gzip
import json
import os
import random
from collections import defaultdict
from functools import lru_cache
from pathlib import Path
from typing import Any

from adapters_store.errors import NotFoundError
from benchmarks.arms import pretraining
from benchmarks.few_shot import Comparison
from benchmarks.report import Report
from benchmarks.study import Study
from benchmarks.study import run as run_study
from patchbay import bundled
from training.adapt import AdaptConfig
from training.recipe import BackboneSection, Recipe, TrainSection
from training.suite.task import Example
from training.task import Task

FOLDER = Path("runs") / "superni"
DEFAULT_DATA = Path("..") / "shared" / "data" / "superni"
SITES = ("self.q", "self.v", "cross.q", "cross.o", "ffn.in", "ffn.out")
MAX_DEFINITION_BYTES, MAX_INSTANCE_BYTES, MAX_OUTPUT_BYTES = 100, 140, 40
MAX_INPUT_TOKENS, MAX_OUTPUT_TOKENS = 256, 48
NUM_FEW, NUM_DEV, NUM_TEST = 32, 16, 50
SEEDS, STEPS, ZERO_SHOT_STEPS = 3, 400, 100


def data_folder() -> Path:
    """Where the extract lies; raises NotFoundError where it does not."""
    folder = Path(os.environ.get("PATCHBAY_SUPERNI", DEFAULT_DATA))
    if not (folder / "tasks.json").is_file():
        raise NotFoundError(
            f"no Super-NaturalInstructions extract at {folder}",
            hint="Set PATCHBAY_SUPERNI to the folder that holds tasks.json.",
        )
    return folder


@lru_cache(maxsize=1)
def _rows() -> dict[tuple[str, str], list[dict[str, Any]]]:
    found: dict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for path in sorted(data_folder().glob("superni_*.jsonl.gz")):
        with gzip.open(path, "rt", encoding="utf-8") as file:
            for line in file:
                row = json.loads(line)
                found[row["task"], row["part"]].append(row)
    return found


def _cut(text: str, num_bytes: int) -> str:
    return text.encode()[:num_bytes].decode(errors="ignore")


def _example(row: dict[str, Any]) -> Example:
    definition = _cut(" ".join(row["definition"].split()), MAX_DEFINITION_BYTES)
    text = f"{definition}\n{_cut(row['input'], MAX_INSTANCE_BYTES)}"
    return Example(text, _cut(row["outputs"][0], MAX_OUTPUT_BYTES), tuple(row["outputs"]))


def seen_tasks() -> list[Task]:
    """The training tasks, by name, with a few dev rows each."""
    rows = _rows()
    names = sorted({task for task, part in rows if part == "train"})
    return [
        Task(
            name,
            [_example(row) for row in rows[name, "train"]],
            [_example(row) for row in rows[name, "val"]][:4],
        )
        for name in names
    ]


def few_shot_names() -> list[str]:
    """The test tasks, by name."""
    return sorted({task for task, part in _rows() if part == "pool"})


def few_shot(name: str, seed: int) -> Task:
    """A test task: train and dev drawn from its pool by seed, the test rows always the same."""
    pool = list(_rows()[name, "pool"])
    random.Random(f"{name}/{seed}").shuffle(pool)
    parts = (
        pool[:NUM_FEW],
        pool[NUM_FEW : NUM_FEW + NUM_DEV],
        _rows()[name, "test"][:NUM_TEST],
    )
    train, dev, test = ([_example(row) for row in part] for part in parts)
    return Task(name, train, dev, test)


def recipe(steps: int) -> Recipe:
    """The pretraining that every source shares but for its method."""
    return Recipe(
        name="superni",
        max_input_tokens=MAX_INPUT_TOKENS,
        max_output_tokens=MAX_OUTPUT_TOKENS,
        backbone=BackboneSection(source=str(bundled.BACKBONE_FOLDER)),
        train=TrainSection(
            steps=steps,
            rows_per_step=12,
            learning_rate=3e-3,
            router_learning_rate=0.05,
            log_every=25,
            save_every=200,
        ),
    )


def comparison(seeds: int) -> Comparison:
    """What every arm shares in learning a new task."""
    config = AdaptConfig(
        init="uniform",
        steps=16,
        rows_per_step=8,
        learning_rate=3e-3,
        router_learning_rate=0.2,
        eval_every=8,
        eval_examples=NUM_DEV,
        rank=8,
        sites=SITES,
        max_input_tokens=MAX_INPUT_TOKENS,
        max_output_tokens=MAX_OUTPUT_TOKENS,
        metric="rouge_l",
    )
    return Comparison(config, ("rouge_l", "exact_match"), seeds)


def study() -> Study:
    """The study in its folder, at its full size."""
    return Study(
        name="superni",
        folder=FOLDER,
        seen=seen_tasks(),
        names=few_shot_names(),
        draw=few_shot,
        methods=pretraining(8, 8, 8, SITES, has_cross=True),
        recipe=recipe(STEPS),
        comparison=comparison(SEEDS),
        sizes={"examples": NUM_FEW, "dev": NUM_DEV, "test": NUM_TEST},
        zero_shot_steps=ZERO_SHOT_STEPS,
    )


def run(*, quick: bool) -> Report:
    """The whole study; ``quick`` takes two steps of everything on one task."""
    return run_study(study(), quick=quick)
