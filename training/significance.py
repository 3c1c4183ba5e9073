"""Paired comparisons of two arms: a bootstrap interval of the mean difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DEFAULT_DRAWS = 10_000


@dataclass(frozen=True, slots=True)
class Difference:
    """``mean`` of first minus second, its 95 % interval, and the share of draws at most zero."""

    mean: float
    low: float
    high: float
    share_not_better: float

    @property
    def is_clear(self) -> bool:
        """True where the interval excludes zero."""
        return self.low > 0 or self.high < 0


def paired_bootstrap(
    first: Sequence[Sequence[float]],
    second: Sequence[Sequence[float]],
    *,
    draws: int = DEFAULT_DRAWS,
    seed: int = 0,
) -> Difference:
    """Compare two arms on the same groups of scores, resampling pairs inside each group.

    ``first[g]`` and ``second[g]`` hold group g's scores (a task under a seed) in the same order;
    every group counts equally, as a mean of tasks does. Raises ValueError where sizes differ.
    Source: the paired bootstrap of Koehn 2004, with percentile intervals.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} groups against {len(second)}; expected as many, at least 1")
    generator = np.random.default_rng(seed)
    total = np.zeros(draws)
    means = []
    for left, right in zip(first, second, strict=True):
        if len(left) != len(right) or not left:
            raise ValueError(f"a group of {len(left)} scores against {len(right)}")
        pairs = np.asarray(left, dtype=float) - np.asarray(right, dtype=float)
        means.append(float(pairs.mean()))
        chosen = generator.integers(0, len(pairs), (draws, len(pairs)))
        total += pairs[chosen].mean(1)
    drawn = total / len(first)
    low, high = np.percentile(drawn, [2.5, 97.5])
    return Difference(float(np.mean(means)), float(low), float(high), float((drawn <= 0).mean()))


def pair_bootstrap(
    first: Sequence[Sequence[float]],
    second: Sequence[Sequence[float]],
    *,
    draws: int = DEFAULT_DRAWS,
    seed: int = 0,
) -> Difference:
    """Compare two square tables of what holds between tasks, resampling the tasks.

    ``first[i][j]`` and ``second[i][j]`` are of the same pair of tasks; the diagonal, a task drawn
    beside itself, and a draw of one task alone are left out. Raises ValueError where shapes differ
    or are not square.
    """
    table = np.asarray(first, dtype=float) - np.asarray(second, dtype=float)
    number = len(table)
    if table.shape != (number, number) or number < 2:
        raise ValueError(f"a table of shape {table.shape}; expected a square of at least 2")
    generator = np.random.default_rng(seed)
    chosen = generator.integers(0, number, (draws, number))
    left, right = chosen[:, :, None], chosen[:, None, :]
    counted = left != right
    counts = counted.sum((1, 2))
    drawn = (table[left, right] * counted).sum((1, 2))[counts > 0] / counts[counts > 0]
    low, high = np.percentile(drawn, [2.5, 97.5])
    mean = float(table[~np.eye(number, dtype=bool)].mean())
    return Difference(mean, float(low), float(high), float((drawn <= 0).mean()))
