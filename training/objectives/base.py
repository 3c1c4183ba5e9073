"""What the loop needs of an objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch

from training.model import AdaptedModel
from training.suite.task import Example

Row = tuple[int, Example]
"""One training row: the task's index and its example."""


class Objective(Protocol):
    """Turns rows into tensors, tensors into a loss, and inputs into predictions."""

    def collate(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Tensors of one batch, with ``task_of_row`` (R,)."""
        ...

    def loss(self, model: AdaptedModel, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Mean loss of the batch, a scalar in float32."""
        ...

    def predict(self, model: AdaptedModel, task: int, examples: Sequence[Example]) -> list[str]:
        """The model's outputs for the examples' inputs under one task, in order."""
        ...
