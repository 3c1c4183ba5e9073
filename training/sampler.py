"""Batches as a pure function of (seed, step), so that a resumed run sees the very same rows."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from training.objectives.base import Row
from training.task import Task

_BATCHES_PER_DRAW = 8


class TaskBalancedSampler:
    """Draws tasks uniformly and examples uniformly inside them.

    Several batches are drawn at once, sorted by input length and dealt in random order: rows of
    similar length share a batch, which wastes little padding, while tasks stay mixed.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        rows_per_step: int,
        seed: int,
        length: Callable[[str], int] = len,
    ) -> None:
        self.tasks = tasks
        self.rows_per_step = rows_per_step
        self.seed = seed
        self.length = length
        self._draw: tuple[int, list[list[Row]]] | None = None

    def _drawn(self, draw: int) -> list[list[Row]]:
        if self._draw is None or self._draw[0] != draw:
            rng = random.Random(f"{self.seed}/{draw}")
            rows: list[Row] = []
            while len(rows) < self.rows_per_step * _BATCHES_PER_DRAW:
                order = list(range(len(self.tasks)))
                rng.shuffle(order)
                rows += [(task, rng.choice(self.tasks[task].train)) for task in order]
            rows = rows[: self.rows_per_step * _BATCHES_PER_DRAW]
            rows.sort(key=lambda row: self.length(row[1].input) + self.length(row[1].output))
            size = self.rows_per_step
            batches = [rows[start : start + size] for start in range(0, len(rows), size)]
            rng.shuffle(batches)
            self._draw = (draw, batches)
        return self._draw[1]

    def batch(self, step: int) -> list[Row]:
        """The rows of training step ``step`` (from 0)."""
        draw, part = divmod(step, _BATCHES_PER_DRAW)
        return self._drawn(draw)[part]
