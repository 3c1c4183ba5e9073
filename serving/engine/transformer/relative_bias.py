"""T5's bucketed relative attention bias (arXiv 1910.10683, section 2.1), as a lookup table."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from adapters_store.families.architecture import RelativeBias


def bucket_of(relative: Tensor, record: RelativeBias) -> Tensor:
    """Bucket of ``key position - query position``; int64 in, int64 out, same shape."""
    num_buckets = record.num_buckets
    first = torch.zeros_like(relative)
    if record.is_bidirectional:
        num_buckets //= 2
        first = (relative > 0).long() * num_buckets
        distance = relative.abs()
    else:
        distance = (-relative).clamp(min=0)
    max_exact = num_buckets // 2
    ratio = torch.log(distance.clamp(min=1).float() / max_exact) / math.log(
        record.max_distance / max_exact
    )
    far = (max_exact + (ratio * (num_buckets - max_exact)).long()).clamp(max=num_buckets - 1)
    return first + torch.where(distance < max_exact, distance, far)


class RelativeBiasTable:
    """Bias by distance; grows on demand, so that a step only gathers."""

    def __init__(self, record: RelativeBias, weight_BH: Tensor) -> None:
        self._record = record
        self._weight = weight_BH
        self.reach = 0
        self.table = weight_BH.new_empty(0, weight_BH.shape[1])

    def reserve(self, reach: int) -> None:
        """Make the table hold distances up to ``reach``: that of 0 is its row of that number."""
        if reach <= self.reach:
            return
        self.reach = max(2 * self.reach, reach, 64)
        relative = torch.arange(-self.reach, self.reach + 1, device=self._weight.device)
        self.table = self._weight[bucket_of(relative, self._record)]

    def between(self, queries: Tensor, keys: Tensor, reach: int) -> Tensor:
        """Bias (..., heads) for int64 positions that broadcast; ``reach`` bounds the distance."""
        self.reserve(reach)
        return self.table[keys - queries + self.reach]
