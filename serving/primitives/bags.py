"""Weighted sums of rows of a table: products of one row each, at the speed of memory.

A product of a single row with a matrix of its own, as decoding asks for by the hundred, reads the
matrix once and reuses nothing. Matrix products pay there for a packing that nobody uses; torch's
bags (``embedding_bag``) only stream the rows. The sum of a bag depends on that bag alone.

Shapes: ``B`` bags of ``L`` rows of a table (R, E).
"""

from __future__ import annotations

from copy import copy
from functools import lru_cache

import torch
from torch import Tensor


class Bags:
    """The rows of a table that each bag sums: ``rows_BL``, integers; repeats are allowed."""

    def __init__(self, rows_BL: Tensor) -> None:
        num_bags, length = rows_BL.shape
        self._rows = rows_BL.flatten().int()
        starts = torch.arange(num_bags, dtype=torch.int, device=rows_BL.device)
        self._starts = starts * length

    def first(self, num_bags: int) -> Bags:
        """The first bags alone, of equal length; they share the memory of these."""
        some = copy(self)
        length = len(self._rows) // len(self._starts)
        some._rows, some._starts = self._rows[: num_bags * length], self._starts[:num_bags]
        return some

    def sums(self, table_RE: Tensor, weights: Tensor) -> Tensor:
        """``sum_l weights[b, l] table[rows[b, l]]``: (B, E); ``weights`` has B * L elements.

        Both have one dtype, in which the sums are rounded once. The columns of a wider table count.
        """
        found: Tensor
        found, *_ = torch.embedding_bag(
            table_RE, self._rows, self._starts, False, 0, False, weights.reshape(-1)
        )
        return found


def consecutive(num_bags: int, length: int) -> Bags:
    """Bags of the CPU that sum one run of ``length`` rows after the other."""
    return _power_of_two(1 << (num_bags - 1).bit_length(), length).first(num_bags)


@lru_cache(maxsize=64)
def _power_of_two(num_bags: int, length: int) -> Bags:
    """What all smaller numbers of bags are the beginning of."""
    return Bags(torch.arange(num_bags * length).view(num_bags, length))
