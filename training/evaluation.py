"""Scoring a task's predictions, one number per example and their mean."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adapters_store.artefact import Artefact
from adapters_store.backbone import Backbone
from adapters_store.errors import InvalidArtefactError
from training import backbones
from training.metrics import scores
from training.model import AdaptedModel
from training.objectives import build_objective
from training.objectives.base import Objective
from training.recipe import BackboneSection
from training.restore import restore
from training.suite.task import Example

_BATCH = 64


def predictions(
    model: AdaptedModel, objective: Objective, task: int, examples: Sequence[Example]
) -> list[str]:
    """The model's outputs in the order of the examples; rows of like length share a batch."""
    order = sorted(range(len(examples)), key=lambda index: len(examples[index].input))
    found: dict[int, str] = {}
    for start in range(0, len(order), _BATCH):
        part = order[start : start + _BATCH]
        outputs = objective.predict(model, task, [examples[index] for index in part])
        found.update(zip(part, outputs, strict=True))
    return [found[index] for index in range(len(examples))]


def accuracy(
    model: AdaptedModel,
    objective: Objective,
    task: int,
    examples: Sequence[Example],
    metric: str = "exact_match",
) -> float:
    """The mean score of the examples; by default the share that is accepted to the letter."""
    found = scores(metric, predictions(model, objective, task, examples), examples)
    return sum(found) / len(found)


def artefact_accuracy(
    folder: Path, artefact: Artefact, bank: Artefact | None, examples: Sequence[Example]
) -> float:
    """Exact match of an artefact on the backbone in ``folder``, under its own signature."""
    about = artefact.manifest.signature
    if about is None:
        raise InvalidArtefactError(f"a {artefact.manifest.kind} has no task to score")
    section = BackboneSection(source=str(folder))
    backbone = Backbone.from_folder(folder)
    model = restore(backbones.load_model(section, about.task), backbone, artefact, bank)
    objective = build_objective(
        about.task,
        model.model,
        backbones.load_tokenizer(section),
        max_input_tokens=about.max_input_tokens,
        max_output_tokens=about.max_output_tokens,
        labels=[about.labels],
    )
    return accuracy(model, objective, 0, examples)
