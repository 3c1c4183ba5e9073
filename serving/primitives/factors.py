"""Low-rank factors of one adapter at one packed site, ready to run.

Shapes: ``D`` input width, ``E`` output width of one member, ``m`` adapted members, ``r`` rank.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from serving.primitives.layout import PackedSite


@dataclass(frozen=True, slots=True)
class Factors:
    """``a`` is (D, m*r); ``b`` is (m, r, E) with the scale folded in; ``members`` ascend."""

    members: tuple[int, ...]
    rank: int
    a: Tensor
    b: Tensor

    @property
    def num_bytes(self) -> int:
        """Bytes of both tensors."""
        return self.a.nbytes + self.b.nbytes


def pack_factors(
    site: PackedSite, pairs: Mapping[int, tuple[Tensor, Tensor, float]], dtype: torch.dtype
) -> Factors:
    """Pack ``{member: (a (D, r), b (r, E), scale)}``; smaller ranks are padded with zeros.

    The scale is multiplied into ``b`` in float32 before the cast to ``dtype``.
    """
    members = tuple(sorted(pairs))
    rank = max(pairs[m][0].shape[1] for m in members)
    device = pairs[members[0]][0].device
    a = torch.zeros(site.in_features, len(members) * rank, dtype=dtype, device=device)
    b = torch.zeros(len(members), rank, site.member_width, dtype=dtype, device=device)
    for position, member in enumerate(members):
        a_Dr, b_rE, scale = pairs[member]
        own = a_Dr.shape[1]
        a[:, position * rank : position * rank + own] = a_Dr
        b[position, :own] = b_rE.float() * scale
    return Factors(members, rank, a, b)
