"""Batches as a pure function of (seed, step), so that a resumed run sees the very same rows."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from training.objectives.base import Row
from training.suite.task import Example
from training.task import Task


@dataclass(frozen=True, slots=True)
class Curriculum:
    """Shortest first: the share of drawn rows that train grows from ``start_share`` to 1.

    A byte-level model finds copying sooner where there are few positions to look at, and short
    steps are cheap. ``steps`` 0 switches it off.
    """

    steps: int = 0
    start_share: float = 0.15

    def share(self, step: int) -> float:
        """The share at ``step``, linear in the steps."""
        if step >= self.steps:
            return 1.0
        return self.start_share + (1.0 - self.start_share) * step / self.steps


NO_CURRICULUM = Curriculum()


class TaskBalancedSampler:
    """Draws tasks uniformly and examples uniformly inside them, without repeats where it can.

    ``batches_per_draw`` batches are drawn at once, sorted by length and dealt in random order:
    rows of similar length share a batch, which wastes little padding, while tasks stay mixed.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        rows_per_step: int,
        seed: int,
        *,
        batches_per_draw: int = 8,
        curriculum: Curriculum = NO_CURRICULUM,
    ) -> None:
        self.tasks = tasks
        self.rows_per_step = rows_per_step
        self.seed = seed
        self.batches_per_draw = batches_per_draw
        self.curriculum = curriculum
        self._draw: tuple[int, list[list[Row]]] | None = None

    def batch(self, step: int) -> list[Row]:
        """The rows of training step ``step`` (from 0)."""
        draw, part = divmod(step, self.batches_per_draw)
        if self._draw is None or self._draw[0] != draw:
            share = self.curriculum.share(draw * self.batches_per_draw)
            self._draw = (draw, self._drawn(random.Random(f"{self.seed}/{draw}"), share))
        return self._draw[1][part]

    def _drawn(self, rng: random.Random, share: float) -> list[list[Row]]:
        size, num_rows = self.rows_per_step, self.rows_per_step * self.batches_per_draw
        num_drawn = round(num_rows / share)
        rows: list[Row] = []
        for task, count in sorted(self._counts(rng, num_drawn).items()):
            rows += [(task, example) for example in _pick(rng, self.tasks[task].train, count)]
        if self.batches_per_draw > 1:
            rows.sort(key=lambda row: len(row[1].input) + len(row[1].output))
        rows = rows[:num_rows]
        batches = [rows[start : start + size] for start in range(0, num_rows, size)]
        rng.shuffle(batches)
        return batches

    def _counts(self, rng: random.Random, num_rows: int) -> Counter[int]:
        """How many of a draw's rows each task gives, by the task's index."""
        order: list[int] = []
        while len(order) < num_rows:
            order += rng.sample(range(len(self.tasks)), len(self.tasks))
        return Counter(order[:num_rows])


class MixedSampler(TaskBalancedSampler):
    """Draws tasks by their ``shares``, which add up to 1, instead of evenly.

    Systematic sampling: in a draw of n rows a task of share p gives n * p rows, rounded up or down
    so that the mean over draws is exact.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        rows_per_step: int,
        seed: int,
        *,
        shares: Sequence[float],
        batches_per_draw: int = 8,
        curriculum: Curriculum = NO_CURRICULUM,
    ) -> None:
        super().__init__(
            tasks, rows_per_step, seed, batches_per_draw=batches_per_draw, curriculum=curriculum
        )
        self.shares = tuple(shares)

    def _counts(self, rng: random.Random, num_rows: int) -> Counter[int]:
        order = rng.sample(range(len(self.shares)), len(self.shares))
        ends = list(accumulate(self.shares[task] for task in order))
        offset = rng.random()
        bounds = [math.floor(end / ends[-1] * num_rows + offset) for end in ends]
        return Counter({task: end - start for task, start, end in zip(order, [0, *bounds], bounds)})


def _pick(rng: random.Random, examples: Sequence[Example], count: int) -> list[Example]:
    picked: list[Example] = []
    while len(picked) < count:
        chosen = rng.sample(range(len(examples)), min(count - len(picked), len(examples)))
        picked += [examples[index] for index in chosen]
    return picked
