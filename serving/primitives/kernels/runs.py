"""The low-rank products of a prefill step by kernels: one table of addresses for all sites.

Shapes: ``T`` tokens, ``D``/``E`` in/out width of a packed site.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from serving.primitives.factors import Factors
from serving.primitives.kernels.fields import MAX_RANK, NO_FIELDS, block_of, fields_of
from serving.primitives.kernels.segments import add_segments, chunks_of
from serving.primitives.layout import PackedSite
from serving.primitives.low_rank import Segments
from serving.upload import upload

Run = tuple[int, int, Mapping[int, Factors]]


class PointerSegments:
    """``runs`` as in :class:`Segments`, which runs the ranks above the kernels'."""

    def __init__(self, sites: Sequence[PackedSite], runs: Sequence[Run]) -> None:
        self._sites = sites
        self._runs = _of_rank(runs, range(MAX_RANK + 1))
        self._wide = Segments(sites, _of_rank(runs, range(MAX_RANK + 1, sys.maxsize)))
        indices = sorted({index for *_, own in self._runs for index in own})
        self._blocks = {
            index: block_of(max(own[index].rank for *_, own in self._runs if index in own))
            for index in indices
        }
        self._number = {index: i for i, index in enumerate(indices)}
        self._table, self._chunks = self._upload(indices)

    def _upload(self, indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Addresses (sites, fields, runs) and chunks (n, 3), in one copy."""
        if not indices:
            return torch.empty(0, device="cpu"), torch.empty(0, device="cpu")
        owns = [own for *_, own in self._runs]
        by_site = [
            [fields_of(own[index]) if index in own else NO_FIELDS for own in owns]
            for index in indices
        ]
        flat = [value for site in by_site for field in zip(*site, strict=True) for value in field]
        chunks = chunks_of([(start, stop) for start, stop, _ in self._runs])
        flat_chunks = [value for chunk in chunks for value in chunk]
        device = next(iter(owns[0].values())).a.device
        both = upload([*flat, *flat_chunks], device, torch.int64)
        table = both[: len(flat)].view(len(indices), len(NO_FIELDS), len(owns))
        return table, both[len(flat) :].view(-1, 3)

    def apply(self, index: int, x_TD: Tensor, y_TE: Tensor) -> None:
        """Add the runs' products at packed site ``index`` to ``y_TE`` in place."""
        block = self._blocks.get(index)
        if block is not None and self._chunks.shape[0]:
            site, table = self._sites[index], self._table[self._number[index]]
            members, width = site.num_members, site.member_width
            add_segments(x_TD, y_TE, self._chunks, table, members, width, block)
        self._wide.apply(index, x_TD, y_TE)


def _of_rank(runs: Sequence[Run], ranks: range) -> list[Run]:
    """The runs with the factors of those ranks alone; without those that have none."""
    kept = [(a, b, {i: f for i, f in own.items() if f.rank in ranks}) for a, b, own in runs]
    return [run for run in kept if run[2]]
