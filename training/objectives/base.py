"""What the loop needs of an objective."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch

from training.model import AdaptedModel
from training.suite.task import Example

Row = tuple[int, Example]
"""One training row: the task's index and its example."""


class Answering(Protocol):
    """What predictions need of an adapted model; ``task_of_row`` (R,) names each row's task."""

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """Every parameter, the first of which tells the device."""
        ...

    def __call__(self, task_of_row: torch.Tensor, **inputs: Any) -> Any:
        """The backbone's forward."""
        ...

    def encode(self, task_of_row: torch.Tensor, **inputs: Any) -> Any:
        """The encoder's forward alone, of an encoder-decoder."""
        ...

    def generate(self, task_of_row: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """Greedy token ids (R, T) without start token or prompt."""
        ...

    def label_logits(
        self, task: int, hidden: torch.Tensor, attention_mask: torch.Tensor
    ) -> torch.Tensor:
        """Logits (R, labels) of one task's head over the last hidden state (R, S, D)."""
        ...


class Objective(Protocol):
    """Turns rows into tensors, tensors into a loss, and inputs into predictions."""

    num_means: int
    """How many means, M, the loss is the sum of."""

    def collate(self, rows: Sequence[Row]) -> dict[str, torch.Tensor]:
        """Tensors of one batch, with ``task_of_row`` (R,)."""
        ...

    def counts(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """How many tokens or rows of the batch each mean of the loss is over, (M,) int64."""
        ...

    def loss(
        self,
        model: AdaptedModel,
        batch: Mapping[str, torch.Tensor],
        totals: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Mean loss of the batch, a scalar in float32.

        ``totals`` (M,) are the counts of a larger batch that this one is a share of: the losses of
        its shares, each under the totals, add up to the larger batch's loss.
        """
        ...

    def predict(self, model: Answering, task: int, examples: Sequence[Example]) -> list[str]:
        """The model's outputs for the examples' inputs under one task, in order."""
        ...


def weighted(
    means: Sequence[torch.Tensor], counts: torch.Tensor, totals: torch.Tensor | None
) -> torch.Tensor:
    """The sum of scalar means in float32, each times its share of ``totals`` (M,) if given."""
    loss = torch.stack([mean.float() for mean in means])
    if totals is not None:
        loss = loss * (counts / totals.clamp(min=1))
    return loss.sum()
