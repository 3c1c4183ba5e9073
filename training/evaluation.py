"""Scoring: exact match and accuracy of a task's predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from adapters_store.artefact import Artefact
from adapters_store.backbone import Backbone
from adapters_store.errors import InvalidArtefactError
from adapters_store.lazy import resolve
from training import backbones
from training.model import AdaptedModel
from training.objectives import OBJECTIVES
from training.objectives.base import Objective
from training.recipe import BackboneSection
from training.restore import restore
from training.suite.task import Example

_BATCH = 64


def accuracy(
    model: AdaptedModel, objective: Objective, task: int, examples: Sequence[Example]
) -> float:
    """The share of examples whose prediction equals the expected output exactly."""
    correct = 0
    ordered = sorted(examples, key=lambda example: len(example.input))
    for start in range(0, len(ordered), _BATCH):
        part = ordered[start : start + _BATCH]
        outputs = objective.predict(model, task, [example.input for example in part])
        correct += sum(out == example.output for out, example in zip(outputs, part))
    return correct / len(examples)


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
    objective: Objective = resolve(OBJECTIVES, about.task, "objective")(
        backbones.load_tokenizer(section),
        max_input_tokens=about.max_input_tokens,
        max_output_tokens=about.max_output_tokens,
        labels=[about.labels],
    )
    return accuracy(model, objective, 0, examples)
