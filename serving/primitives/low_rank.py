"""``low_rank``: ``y += scale * (x a) b``, the rows of a step each with factors of their own.

Three paths compute the same function. :func:`reference` is the obvious one, row by row.
:class:`Segments` runs one small product per contiguous run of tokens and serves prefill.
:class:`RowTable` keeps the factors of a decode batch in row order, so a packed site costs two
batched products however many adapters the batch mixes.

Shapes: ``T`` tokens, ``R`` rows, ``D`` input width, ``E`` output width of one member, ``M``
members of the packed site, ``m`` adapted members, ``r`` rank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from serving.primitives.bags import Bags, consecutive
from serving.primitives.factors import Factors, pack_factors
from serving.primitives.layout import PackedSite
from serving.primitives.prepared import Prepared, Target
from serving.primitives.rows import RowOrder, Rows, Whole


def prepare(parts: Sequence[Any], tensors: Mapping[str, Tensor], target: Target) -> Prepared:
    """Pack every ``LowRankPart`` of an adapter; raises IncompatibleError on unknown sites.

    The product reads the site's unscaled input, so a ``scale`` of the adapter's own that stands
    before the site is multiplied into ``a``.
    """
    pairs: dict[int, dict[int, tuple[Tensor, Tensor, float]]] = {}
    for part in parts:
        index, member = target.layout.place(part.site)
        a = tensors[f"{part.site}/low_rank/a"].to(target.device)
        b = tensors[f"{part.site}/low_rank/b"].to(target.device)
        v = tensors.get(f"{part.site}/scale/input")
        if v is not None:
            a = a.float() * v.to(target.device, torch.float32).unsqueeze(1)
        pairs.setdefault(index, {})[member] = (a, b, float(part.scale))
    packed = target.layout.packed
    return Prepared(factors={i: pack_factors(packed[i], p, target.dtype) for i, p in pairs.items()})


def reference(site: PackedSite, x_TD: Tensor, y_TE: Tensor, rows: Sequence[Factors | None]) -> None:
    """Add each token's own product to ``y_TE`` in place; ``rows`` has one entry a token."""
    for t, factors in enumerate(rows):
        if factors is None:
            continue
        r, width = factors.rank, site.member_width
        for position, member in enumerate(factors.members):
            a_Dr = factors.a[:, position * r : (position + 1) * r]
            y_TE[t, member * width : (member + 1) * width] += x_TD[t] @ a_Dr @ factors.b[position]


class Segments:
    """Contiguous runs of tokens that share an adapter; built once per prefill step.

    ``runs`` holds ``(start, stop, factors by packed site)`` with half-open token ranges.
    """

    def __init__(
        self, sites: Sequence[PackedSite], runs: Sequence[tuple[int, int, Mapping[int, Factors]]]
    ) -> None:
        self._sites = sites
        self._runs = tuple(runs)

    def apply(self, index: int, x_TD: Tensor, y_TE: Tensor) -> None:
        """Add the runs' products at packed site ``index`` to ``y_TE`` in place."""
        width = self._sites[index].member_width
        for start, stop, by_site in self._runs:
            factors = by_site.get(index)
            if factors is None:
                continue
            u_Tr = x_TD[start:stop] @ factors.a
            r = factors.rank
            for position, member in enumerate(factors.members):
                out = y_TE[start:stop, member * width : (member + 1) * width]
                out.addmm_(u_Tr[:, position * r : (position + 1) * r], factors.b[position])


class RowTable:
    """Factors of a decode batch at one packed site, in row order.

    A row that joins writes its own factors only; a row that leaves is overwritten by the last.
    Ranks below the table's are padded with zeros; the table grows in rank, members and rows when
    a row needs it. ``rows[i]`` is the batch row that entry ``i`` belongs to.

    On the CPU batched products reach the speed of memory in float32; in bfloat16 they take two to
    three times as long as the same products as weighted sums of rows, which are run there.
    """

    def __init__(self, site: PackedSite, dtype: torch.dtype, device: torch.device) -> None:
        self._site = site
        self._order = RowOrder(device)
        self._is_summed = device.type == "cpu" and dtype == torch.bfloat16
        self._members: tuple[int, ...] = ()
        self._rank = 0
        self._a = torch.empty(0, site.in_features, 0, dtype=dtype, device=device)
        self._b = torch.empty(0, 0, 0, site.member_width, dtype=dtype, device=device)
        self._views: tuple[Rows, Tensor, Tensor] | None = None
        self._bags: tuple[Bags, Bags] | None = None

    @property
    def rows(self) -> list[int]:
        """The batch rows held, in the order of their entries."""
        return self._order.rows

    @property
    def num_bytes(self) -> int:
        """Bytes of the preallocated buffers."""
        return self._a.nbytes + self._b.nbytes

    def join(self, row: int, factors: Factors) -> None:
        """Append the factors of batch row ``row``."""
        members = tuple(sorted({*self._members, *factors.members}))
        rank = max(self._rank, factors.rank)
        n = len(self.rows)
        if members != self._members or rank != self._rank or n == self._a.shape[0]:
            self._resize(max(8, 2 * n) if n == self._a.shape[0] else n, members, rank)
        self._write(n, factors)
        self._order.join(row)
        self._views = None

    def leave(self, row: int, last: int) -> None:
        """Forget batch row ``row``; batch row ``last`` is renamed to ``row`` by compaction."""
        moved = self._order.leave(row, last)
        if moved is not None:
            self._a[moved[0]] = self._a[moved[1]]
            self._b[moved[0]] = self._b[moved[1]]
        self._views = None
        if not self.rows:
            self._members, self._rank = (), 0
            self._a, self._b = self._a.new_empty(0, 0, 0), self._b.new_empty(0, 0, 0, 0)

    def touch(self) -> None:
        """Note that the batch changed around the table's rows."""
        self._order.touch()
        self._views = None

    def apply(self, x_RD: Tensor, y_RE: Tensor) -> None:
        """Add every row's product to ``y_RE`` (R, M*E) in place; columns of a wider one count."""
        if self._views is None:
            self._views = self._refresh(x_RD.shape[0])
        rows, a_nDr, b_nrE = self._views
        n, m, width = len(self.rows), len(self._members), self._site.member_width
        is_full = m == self._site.num_members
        if self._bags is not None:
            u = self._bags[0].sums(a_nDr.flatten(0, 1), rows.take(x_RD))
            delta = self._bags[1].sums(b_nrE.flatten(0, 1), u).view(n, m * width)
        else:
            u = torch.bmm(rows.take(x_RD).unsqueeze(1), a_nDr).view(n * m, 1, self._rank)
            if is_full and isinstance(rows, Whole) and (m == 1 or y_RE.is_contiguous()):
                y_RE.view(n * m, 1, width).baddbmm_(u, b_nrE)
                return
            delta = torch.bmm(u, b_nrE).view(n, m * width)
        if is_full:
            rows.add(y_RE, delta)
            return
        y_RME = y_RE.view(-1, self._site.num_members, width)
        for position, member in enumerate(self._members):
            rows.add(y_RME[:, member], delta[:, position * width : (position + 1) * width])

    def _refresh(self, num_rows: int) -> tuple[Rows, Tensor, Tensor]:
        n, m = len(self.rows), len(self._members)
        b = self._b[:n].view(n * m, self._rank, self._site.member_width)
        if self._is_summed:
            self._bags = consecutive(n, self._site.in_features), consecutive(n * m, self._rank)
        return self._order.within(num_rows), self._a[:n], b

    def _resize(self, capacity: int, members: tuple[int, ...], rank: int) -> None:
        capacity = max(capacity, self._a.shape[0])
        old_a, old_b = self._a, self._b
        old_members, old_rank = self._members, self._rank
        n, m = len(self.rows), len(members)
        site = self._site
        self._a = old_a.new_zeros(capacity, site.in_features, m * rank)
        self._b = old_b.new_zeros(capacity, m, rank, site.member_width)
        self._members, self._rank = members, rank
        for position, member in enumerate(old_members):
            to = members.index(member)
            source = old_a[:n, :, position * old_rank : (position + 1) * old_rank]
            self._a[:n, :, to * rank : to * rank + old_rank] = source
            self._b[:n, to, :old_rank] = old_b[:n, position]

    def _write(self, position: int, factors: Factors) -> None:
        if factors.members == self._members and factors.rank == self._rank:
            self._a[position] = factors.a
            self._b[position] = factors.b
            return
        self._a[position].zero_()
        self._b[position].zero_()
        r = factors.rank
        for i, member in enumerate(factors.members):
            to = self._members.index(member)
            start = to * self._rank
            self._a[position, :, start : start + r] = factors.a[:, i * r : (i + 1) * r]
            self._b[position, to, :r] = factors.b[i]
