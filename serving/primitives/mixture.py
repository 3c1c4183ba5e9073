"""``mixture``: low-rank factors mixed from a shared bank by a task's routing weights, per head.

``A_t = concat_h sum_k W[h,k] A[h,k]``, ``B_t = concat_h sum_k W[h,k] B[h,k]`` and
``y += scale * (x A_t) B_t`` (multi-head routing, arXiv 2211.03831; one head is Polytropon).

Two exact forms. *Composed*: ``A_t`` and ``B_t`` are built once, when the task is admitted, and
run as ``low_rank``; prefill always uses it. *Shared bank*: ``u = x_heads A_bank`` is contracted
with the routing weights and expanded the same way through ``B_bank``; its bytes do not depend on
the number of tasks. :func:`is_shared_cheaper` computes which one a decode batch wants.

Shapes: ``n`` rows, ``D``/``E`` in/out width of a member, ``H`` heads, ``K`` skills, ``r`` rank,
``m`` adapted members of a packed site, ``S`` sites of the bank.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adapters_store.errors import InvalidArtefactError
from serving.primitives.factors import Factors, pack_factors
from serving.primitives.layout import PackedSite
from serving.primitives.prepared import Prepared, Target
from serving.primitives.rows import RowOrder
from serving.upload import upload


@dataclass(frozen=True, slots=True)
class BankSite:
    """A bank at one packed site.

    ``a`` (H, D/H, m*K*r) and ``b`` (m*H, K*r, E/H) with the scale folded into ``b``; ``order``
    holds the bank-wide site index of each adapted member.
    """

    members: tuple[int, ...]
    order: tuple[int, ...]
    num_heads: int
    num_skills: int
    rank: int
    a: Tensor
    b: Tensor

    def compose(self, weights_SHK: Tensor) -> Factors:
        """The factors of one task, mixed in float32; one product per factor and head."""
        H, K, r, m = self.num_heads, self.num_skills, self.rank, len(self.members)
        w_mHK = weights_SHK.index_select(0, upload(self.order, weights_SHK.device)).float()
        a_HdmKr = self.a.float().view(H, -1, m, K, r)
        b_mHKrd = self.b.float().view(m, H, K, r, -1)
        a = torch.einsum("mhk,hdmkr->hdmr", w_mHK, a_HdmKr).reshape(-1, m * r)
        b = torch.einsum("mhk,mhkrd->mrhd", w_mHK, b_mHKrd).reshape(m, r, -1)
        dtype = self.a.dtype
        return Factors(self.members, r, a.to(dtype).contiguous(), b.to(dtype).contiguous())


@dataclass(frozen=True, slots=True)
class Bank:
    """A whole bank: its packed sites, and the canonical site names in the bank's order."""

    sites: Mapping[int, tuple[BankSite, ...]]
    names: tuple[str, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of all factors."""
        return sum(s.a.nbytes + s.b.nbytes for group in self.sites.values() for s in group)


@dataclass(frozen=True, slots=True)
class Mixture:
    """One task's routing: ``weights`` (S, H, K) float32 over the sites of ``bank``."""

    bank: Bank
    weights: Tensor

    @property
    def num_bytes(self) -> int:
        """Bytes of the routing weights; the bank is counted by its own entry."""
        return self.weights.nbytes


def prepare_bank(parts: Sequence[Any], tensors: Mapping[str, Tensor], target: Target) -> Prepared:
    """Lay a bank out by packed site; members of unlike shapes or scales stay apart."""
    grouped: dict[int, dict[tuple[int, int, int], list[tuple[int, int, Any]]]] = {}
    for order, part in enumerate(parts):
        index, member = target.layout.place(part.site)
        shape = (part.num_heads, part.num_skills, part.rank)
        grouped.setdefault(index, {}).setdefault(shape, []).append((member, order, part))
    sites = {
        index: tuple(
            _bank_site(target.layout.packed[index], sorted(found, key=lambda f: f[0]), tensors)
            for found in shapes.values()
        )
        for index, shapes in grouped.items()
    }
    moved = {
        index: tuple(
            BankSite(
                s.members,
                s.order,
                s.num_heads,
                s.num_skills,
                s.rank,
                s.a.to(target.device, target.dtype),
                s.b.to(target.device, target.dtype),
            )
            for s in group
        )
        for index, group in sites.items()
    }
    return Prepared(bank=Bank(moved, tuple(part.site for part in parts)))


def _bank_site(
    site: PackedSite, found: Sequence[tuple[int, int, Any]], tensors: Mapping[str, Tensor]
) -> BankSite:
    first = found[0][2]
    H, K, r = first.num_heads, first.num_skills, first.rank
    a_parts, b_parts = [], []
    for _, _, part in found:
        a_HKdr = tensors[f"{part.site}/mixture/a"].float()
        b_HKrd = tensors[f"{part.site}/mixture/b"].float() * float(part.scale)
        a_parts.append(a_HKdr.permute(0, 2, 1, 3).reshape(H, site.in_features // H, K * r))
        b_parts.append(b_HKrd.reshape(H, K * r, site.member_width // H))
    return BankSite(
        tuple(member for member, _, _ in found),
        tuple(order for _, order, _ in found),
        H,
        K,
        r,
        torch.cat(a_parts, dim=2).contiguous(),
        torch.cat(b_parts, dim=0).contiguous(),
    )


def prepare_routing(
    parts: Sequence[Any], tensors: Mapping[str, Tensor], target: Target, bank: Bank
) -> Prepared:
    """Bind a routing to its bank and compose the task's factors.

    Raises :class:`InvalidArtefactError` when the routing names other sites than the bank.
    """
    (part,) = parts
    if tuple(part.sites) != bank.names:
        raise InvalidArtefactError(
            f"the routing names {len(part.sites)} sites that differ from the bank's "
            f"{len(bank.names)} sites or their order"
        )
    weights = tensors["routing/weights"].to(target.device, torch.float32)
    mixture = Mixture(bank, weights)
    return Prepared(factors=compose(mixture, target), mixture=mixture)


def compose(mixture: Mixture, target: Target) -> dict[int, Factors]:
    """Composed factors of one task for every packed site of its bank."""
    composed: dict[int, Factors] = {}
    for index, group in mixture.bank.sites.items():
        found = [bank_site.compose(mixture.weights) for bank_site in group]
        composed[index] = found[0] if len(found) == 1 else _joined(target, index, found)
    return composed


def _joined(target: Target, index: int, found: Sequence[Factors]) -> Factors:
    pairs = {}
    for factors in found:
        r = factors.rank
        for i, member in enumerate(factors.members):
            pairs[member] = (factors.a[:, i * r : (i + 1) * r], factors.b[i], 1.0)
    return pack_factors(target.layout.packed[index], pairs, target.dtype)


def reference(
    a_HKdr: Tensor, b_HKrd: Tensor, weights_nHK: Tensor, x_nD: Tensor, scale: float
) -> Tensor:
    """The addition of one site, row by row and head by head as the formula is written; (n, E)."""
    H, K = weights_nHK.shape[1:]
    out = []
    for w_HK, x_D in zip(weights_nHK, x_nD, strict=True):
        a_t = torch.cat([sum_skills(w_HK[h], a_HKdr[h], K) for h in range(H)], dim=0)
        b_t = torch.cat([sum_skills(w_HK[h], b_HKrd[h], K) for h in range(H)], dim=1)
        out.append(scale * (x_D @ a_t) @ b_t)
    return torch.stack(out)


def sum_skills(w_K: Tensor, blocks: Tensor, num_skills: int) -> Tensor:
    """``sum_k w[k] blocks[k]``, written as the loop it is."""
    total = torch.zeros_like(blocks[0])
    for k in range(num_skills):
        total = total + w_K[k] * blocks[k]
    return total


def is_shared_cheaper(num_rows: int, num_skills: int, itemsize: int, balance: float) -> bool:
    """True where the shared-bank form of a decode step is cheaper than row-ordered factors.

    Per unit of ``r * (D + E)``: row-ordered factors read ``num_rows * itemsize`` bytes; the shared
    form reads ``num_skills * itemsize`` bytes once and computes ``2 * num_rows * num_skills``
    floating point operations. ``balance`` is the machine's FLOP per byte.
    """
    row_ordered = num_rows * itemsize
    shared = num_skills * itemsize + 2.0 * num_rows * num_skills / balance
    return shared < row_ordered


class BankTable:
    """Rows of a decode batch that share one bank, at every packed site (shared-bank form)."""

    def __init__(self, bank: Bank, sites: Sequence[PackedSite]) -> None:
        self.bank = bank
        self._sites = sites
        device = next(s.a.device for group in bank.sites.values() for s in group)
        self._order = RowOrder(device)
        self._weights: list[Tensor] = []
        self._by_site: dict[int, list[tuple[BankSite, Tensor]]] | None = None

    @property
    def rows(self) -> list[int]:
        """The batch rows held, in the order of their entries."""
        return self._order.rows

    @property
    def num_bytes(self) -> int:
        """Bytes of the rows' routing weights."""
        return sum(w.nbytes for w in self._weights)

    @property
    def shape(self) -> None:
        """A step over weights that grow and move cannot be recorded."""
        return None

    def refresh(self) -> None:
        """Nothing to do before a step: :meth:`apply` stacks the weights when rows have changed."""

    def join(self, row: int, mixture: Mixture) -> None:
        """Append batch row ``row`` with its routing."""
        self._order.join(row)
        self._weights.append(mixture.weights)
        self._by_site = None

    def leave(self, row: int, last: int) -> None:
        """Forget batch row ``row``; batch row ``last`` is renamed to ``row`` by compaction."""
        if row in self.rows:
            self._weights[self.rows.index(row)] = self._weights[-1]
            self._weights.pop()
            self._by_site = None
        self._order.leave(row, last)

    def touch(self) -> None:
        """Note that the batch changed around the table's rows."""
        self._order.touch()

    def apply(self, index: int, x_RD: Tensor, y_RE: Tensor) -> None:
        """Add the rows' mixtures at packed site ``index`` to ``y_RE`` in place."""
        if self._by_site is None:
            self._by_site = self._refresh(x_RD.dtype)
        found = self._by_site.get(index)
        if found is None:
            return
        rows = self._order.within(x_RD.shape[0])
        x_nD = rows.take(x_RD)
        site = self._sites[index]
        y_RME = y_RE.view(-1, site.num_members, site.member_width)
        for bank_site, w_nmHK in found:
            delta_nmE = shared_bank(bank_site, w_nmHK, x_nD)
            for position, member in enumerate(bank_site.members):
                rows.add(y_RME[:, member], delta_nmE[:, position])

    def _refresh(self, dtype: torch.dtype) -> dict[int, list[tuple[BankSite, Tensor]]]:
        if not self._weights:
            return {}
        weights_nSHK = torch.stack(self._weights).to(dtype)
        device = weights_nSHK.device
        return {
            index: [(s, weights_nSHK.index_select(1, upload(s.order, device))) for s in group]
            for index, group in self.bank.sites.items()
        }


def shared_bank(site: BankSite, w_nmHK: Tensor, x_nD: Tensor) -> Tensor:
    """The mixture of every row at one packed site, (n, m, E), without composing any factor."""
    n = x_nD.shape[0]
    H, K, r, m = site.num_heads, site.num_skills, site.rank, len(site.members)
    u_HnmKr = torch.bmm(x_nD.view(n, H, -1).transpose(0, 1), site.a).view(H, n, m, K, r)
    u = u_HnmKr.permute(1, 2, 0, 3, 4).reshape(n * m, H * K, r)
    z_nmr = torch.bmm(w_nmHK.reshape(n * m, 1, H * K), u).view(n, m, 1, 1, r)
    v = (w_nmHK.unsqueeze(-1) * z_nmr).permute(1, 2, 0, 3, 4).reshape(m * H, n, K * r)
    return torch.bmm(v, site.b).view(m, H, n, -1).permute(2, 0, 1, 3).reshape(n, m, -1)
