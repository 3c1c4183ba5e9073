"""Numbers that describe a learnt routing, and the order in which its tasks resemble each other.

Legend: T tasks, S sites, H heads, K skills. Source: the router statistics of Polytropon (Ponti et
al. 2022, section 5): discreteness, sparsity and usage of the gates.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, slots=True)
class RouterStatistics:
    """``discreteness`` is the mean Bernoulli entropy of the gates over log 2: 0 where every gate is
    on or off, 1 where all are undecided. ``sparsity`` is the share of gates that round to 1.
    ``usage`` is the entropy of the skills' total weight over log K: 1 where all are used alike.
    """

    discreteness: float
    sparsity: float
    usage: float


def skill_shares(weights_TSHK: Array) -> Array:
    """Each skill's share (K,) of all routing weight; they sum to 1."""
    totals: Array = weights_TSHK.sum((0, 1, 2))
    shares: Array = totals / totals.sum()
    return shares


def router_statistics(gates_TSHK: Array) -> RouterStatistics:
    """Statistics of gates (T, S, H, K) from 0 to 1, before they are normalised."""
    gates = gates_TSHK
    inside = np.clip(gates, 1e-12, 1 - 1e-12)
    entropy = -(inside * np.log(inside) + (1 - inside) * np.log(1 - inside))
    shares = skill_shares(gates)
    spread = -(shares * np.log(np.clip(shares, 1e-12, None))).sum()
    num_skills = gates.shape[-1]
    return RouterStatistics(
        float(entropy.mean() / np.log(2)),
        float((gates > 0.5).mean()),
        float(spread / np.log(num_skills)) if num_skills > 1 else 1.0,
    )


@dataclass(frozen=True, slots=True)
class Merge:
    """Two clusters become one at a height; clusters below ``T`` are tasks, later ones merges."""

    left: int
    right: int
    height: float
    size: int


def average_linkage(vectors_TN: Array) -> list[Merge]:
    """Agglomerative clustering by mean cosine distance: T - 1 merges, lowest first."""
    number = len(vectors_TN)
    norms = np.linalg.norm(vectors_TN, axis=1, keepdims=True)
    unit = vectors_TN / np.where(norms == 0, 1.0, norms)
    distances = np.clip(1.0 - unit @ unit.T, 0.0, 2.0)
    np.fill_diagonal(distances, np.inf)
    clusters, sizes = list(range(number)), [1] * number
    merges: list[Merge] = []
    for _ in range(number - 1):
        row, column = divmod(int(distances.argmin()), number)
        height, size = float(distances[row, column]), sizes[row] + sizes[column]
        merges.append(Merge(clusters[row], clusters[column], height, size))
        joined = (sizes[row] * distances[row] + sizes[column] * distances[column]) / size
        distances[row], distances[:, row], distances[row, row] = joined, joined, np.inf
        distances[column] = distances[:, column] = np.inf
        clusters[row], sizes[row] = number + len(merges) - 1, size
    return merges


def leaf_order(merges: list[Merge], number: int) -> list[int]:
    """The tasks from left to right so that no branches of the tree cross."""
    if not merges:
        return list(range(number))

    def leaves(cluster: int) -> list[int]:
        if cluster < number:
            return [cluster]
        merge = merges[cluster - number]
        return leaves(merge.left) + leaves(merge.right)

    return leaves(number + len(merges) - 1)
