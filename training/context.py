"""Which task each row of the running batch belongs to, shared by every adapted site."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from training.methods.effects import Effect


@dataclass
class TaskContext:
    """The batch's tasks: ``tasks`` (U,) distinct task indices, ``rows`` (R,) index into them.

    ``version`` counts changes, so that a site may keep factors it composed without gradients for
    as long as the context stays the same (every decode step of one ``generate`` call).
    """

    tasks: torch.Tensor
    rows: torch.Tensor
    version: int = 0
    recorded: dict[str, Effect] | None = None

    def set(self, task_of_row: torch.Tensor) -> None:
        """Enter a batch; ``task_of_row`` (R,) int64 holds each row's task index."""
        self.tasks, self.rows = torch.unique(task_of_row, return_inverse=True)
        self.version += 1

    @contextmanager
    def recording(self) -> Iterator[dict[str, Effect]]:
        """Keep every site's effect of the batch's tasks by site name, for as long as this lasts.

        A site that runs again in the meantime uses the effect it gave first.
        """
        self.recorded = {}
        try:
            yield self.recorded
        finally:
            self.recorded = None
