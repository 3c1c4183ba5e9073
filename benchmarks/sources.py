"""What few-shot arms start from: pretraining runs on the seen tasks, kept in folders."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters_store.artefact import Artefact, read_artefact, write_artefact
from adapters_store.backbone import Backbone
from benchmarks.arms import RATES
from training.library import library_bank
from training.publish import run_artefacts
from training.recipe import MethodSection, Recipe
from training.run import Run
from training.task import Task


@dataclass(frozen=True)
class Source:
    """A bank or a shared adapter, and the seen tasks' artefacts by name: routings over a bank."""

    artefact: Artefact
    tasks: Mapping[str, Artefact]


def source(
    method: MethodSection,
    recipe: Recipe,
    seen: Sequence[Task],
    folder: Path,
    backbone: Backbone,
    *,
    rate: float = 1.0,
) -> Source:
    """What a pretraining run gives; runs, or resumes, where it is not finished.

    ``rate`` multiplies the recipe's learning rate. The artefact of a run with a LoRA per task is
    their library: a bank of one skill per task.
    """
    kept, names = folder / "artefact", [task.name for task in seen]
    if not kept.exists():
        train = recipe.train.model_copy(update={"learning_rate": recipe.train.learning_rate * rate})
        run = Run.build(recipe.model_copy(update={"method": method, "train": train}), list(seen))
        run.train(folder, report=lambda record: print(folder.name, record, flush=True))
        bank, tasks = run_artefacts(run, folder, backbone)
        if method.is_private:
            bank = library_bank(list(tasks.values()), backbone)
        for name, artefact in tasks.items():
            write_artefact(artefact, folder / "tasks" / name)
        write_artefact(bank or tasks[names[0]], kept)
    return Source(
        read_artefact(kept), {name: read_artefact(folder / "tasks" / name) for name in names}
    )


def sources(
    methods: Mapping[str, MethodSection],
    recipe: Recipe,
    seen: Sequence[Task],
    folder: Path,
    backbone: Backbone,
    *,
    rates: Mapping[str, float] = RATES,
) -> dict[str, Source]:
    """Every source by name, each in a folder of its own, at the recipe's rate times its own."""
    return {
        name: source(method, recipe, seen, folder / name, backbone, rate=rates.get(name, 1.0))
        for name, method in methods.items()
    }
