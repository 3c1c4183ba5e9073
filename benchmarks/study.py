"""A study: sources pretrained on the seen tasks of a collection, then every arm on its new tasks.

Its parts are few-shot arms from the uniform start, routings from other starts, and tasks without
examples; everything is kept in the study's folder, and a stopped study goes on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from benchmarks import zero_shot
from benchmarks.arms import (
    ARMS,
    LIBRARY_ARMS,
    LIBRARY_PAIRS,
    PAIRS,
    START_ARMS,
    START_PAIRS,
    library,
)
from benchmarks.comparisons import differences, means, task_table
from benchmarks.few_shot import Comparison, Draw, run_cells
from benchmarks.report import Report
from benchmarks.sources import sources
from patchbay import bundled
from training.adapt import Teacher
from training.recipe import MethodSection, Recipe
from training.task import Task


@dataclass(frozen=True)
class Study:
    """What a collection brings: tasks, how few-shot ones are drawn, sources, settings.

    ``sizes`` tell of a few-shot task's examples, dev and test rows.
    """

    name: str
    folder: Path
    seen: Sequence[Task]
    names: Sequence[str]
    draw: Draw
    methods: Mapping[str, MethodSection]
    recipe: Recipe
    comparison: Comparison
    sizes: Mapping[str, int]
    zero_shot_steps: int

    @property
    def config(self) -> dict[str, Any]:
        """What the report says of the study."""
        steps, seeds = self.recipe.train.steps, self.comparison.seeds
        return {"steps": steps, "seeds": seeds, **self.sizes}


def quickened(study: Study, folder: Path) -> Study:
    """The study with six seen tasks and two steps of everything on one task, in another folder."""

    def draw(name: str, seed: int) -> Task:
        task = study.draw(name, seed)
        return replace(task, dev=task.dev[:4], test=task.test[:8])

    config = replace(study.comparison.config, steps=2, eval_every=1)
    train = study.recipe.train.model_copy(update={"steps": 2})
    return replace(
        study,
        folder=folder,
        seen=study.seen[:6],
        names=study.names[:1],
        draw=draw,
        recipe=study.recipe.model_copy(update={"train": train}),
        comparison=replace(study.comparison, config=config, seeds=1),
        sizes={**study.sizes, "dev": 4, "test": 8, "quick": True},
        zero_shot_steps=2,
    )


def run(study: Study, *, quick: bool) -> Report:
    """The study on the bundled backbone, or its quick form in a folder that does not stay."""
    teacher = Teacher.open(bundled.BACKBONE_FOLDER)
    if not quick:
        return run_parts(study, teacher)
    with TemporaryDirectory() as folder:
        return run_parts(quickened(study, Path(folder)), teacher)


def run_parts(study: Study, teacher: Teacher) -> Report:
    """All parts of the study; the first metric decides the ratios and the table by task."""
    config, metric = study.comparison.config, study.comparison.metrics[0]
    methods = {**study.methods, "library": library(config.rank, config.sites)}
    made = sources(methods, study.recipe, study.seen, study.folder, teacher.backbone)
    comparison = replace(study.comparison, arms=(*ARMS, *START_ARMS, *LIBRARY_ARMS))
    rows = run_cells(study.names, study.draw, teacher, made, comparison, study.folder)
    train = study.recipe.train.model_copy(update={"steps": study.zero_shot_steps})
    unseen = zero_shot.run_arms(
        study.names, study.draw, study.seen, teacher, made, comparison, train, study.folder
    )
    report = Report(study.name, study.config)
    lines = [line for one in comparison.metrics for line in means(rows, one)]
    report.rows = [{"part": "few-shot", **line} for line in lines]
    report.rows += [
        {"part": "zero-shot", **line} for one in comparison.metrics for line in means(unseen, one)
    ]
    pairs = (*PAIRS, *START_PAIRS, *LIBRARY_PAIRS)
    for one in comparison.metrics:
        found = differences(rows, pairs, one)
        without = differences(unseen, zero_shot.PAIRS, one)
        report.rows += [{"part": "few-shot difference", **line} for line in found]
        report.rows += [{"part": "zero-shot difference", **line} for line in without]
    report.rows += [{"part": "by task", **line} for line in task_table(rows, metric)]
    by_arm = {line["arm"]: line["mean"] for line in lines if line["metric"] == metric}
    report.ratios = {f"{metric}_{arm.folder}": by_arm[arm.name] for arm in comparison.arms}
    return report
