"""Scoring: exact match and accuracy of a task's predictions."""

from __future__ import annotations

from collections.abc import Sequence

from training.model import AdaptedModel
from training.objectives.base import Objective
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
