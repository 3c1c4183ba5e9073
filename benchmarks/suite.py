"""The generated suite: every arm learns its held-out tasks on the bundled backbone, frozen.

Every source is pretrained anew on the 48 seen tasks, the same steps for each; the bank that comes
with the package, which learned together with the backbone, is left out. Runs are kept in
``runs/suite``: a benchmark that was stopped goes on.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from benchmarks.arms import pretraining
from benchmarks.few_shot import Comparison
from benchmarks.report import Report
from benchmarks.study import Study
from benchmarks.study import run as run_study
from patchbay import bundled
from training.adapt import AdaptConfig
from training.recipe import BackboneSection, Recipe, TasksSection, TrainSection
from training.sources import load_tasks, suite_task
from training.suite import HELD_OUT
from training.task import Task

FOLDER = Path("runs") / "suite"
SITES = ("self.q", "self.v", "cross.q", "cross.o", "ffn.in", "ffn.out")
NUM_FEW, NUM_DEV, NUM_TEST = 32, 16, 50
SEEDS, STEPS, ZERO_SHOT_STEPS = 3, 600, 100


def seen_tasks() -> list[Task]:
    """The suite's seen tasks."""
    return load_tasks(TasksSection(names=("seen",), num_train=2000, num_dev=4, num_test=0))


def few_shot(name: str, seed: int) -> Task:
    """A held-out task: few examples and dev by seed, the test inputs always the same."""
    drawn = suite_task(name, TasksSection(num_train=NUM_FEW, num_dev=NUM_DEV, seed=seed))
    fixed = suite_task(name, TasksSection(num_train=1, num_dev=0, num_test=NUM_TEST))
    return replace(drawn, test=fixed.test)


def recipe(steps: int) -> Recipe:
    """The pretraining that every source shares but for its method."""
    return Recipe(
        name="suite",
        max_input_tokens=96,
        max_output_tokens=48,
        backbone=BackboneSection(source=str(bundled.BACKBONE_FOLDER)),
        train=TrainSection(
            steps=steps,
            rows_per_step=24,
            learning_rate=3e-3,
            router_learning_rate=0.05,
            log_every=50,
            save_every=200,
        ),
    )


def comparison(seeds: int) -> Comparison:
    """What every arm shares in learning a new task."""
    config = AdaptConfig(
        init="uniform",
        steps=24,
        rows_per_step=16,
        learning_rate=3e-3,
        router_learning_rate=0.2,
        eval_every=12,
        eval_examples=NUM_DEV,
        rank=8,
        sites=SITES,
        max_input_tokens=96,
        max_output_tokens=48,
    )
    return Comparison(config, ("exact_match",), seeds)


def study() -> Study:
    """The study in its folder, at its full size."""
    return Study(
        name="suite",
        folder=FOLDER,
        seen=seen_tasks(),
        names=HELD_OUT,
        draw=few_shot,
        methods=pretraining(8, 8, 4, SITES, has_cross=True),
        recipe=recipe(STEPS),
        comparison=comparison(SEEDS),
        sizes={"examples": NUM_FEW, "dev": NUM_DEV, "test": NUM_TEST},
        zero_shot_steps=ZERO_SHOT_STEPS,
    )


def run(*, quick: bool) -> Report:
    """The whole study; ``quick`` takes two steps of everything on one task."""
    return run_study(study(), quick=quick)
