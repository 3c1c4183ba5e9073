"""What a method does at a linear site, as values that act on a batch's rows.

Legend: U tasks, R rows, S positions, D input width, r rank, K skills. Every effect has leading
dimension U or, after ``of_rows``, R; 1 stands for all rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch

Side = Literal["input", "output"]
Linear = Callable[[torch.Tensor], torch.Tensor]


class Factors(NamedTuple):
    """``y += scale * (x a) b`` with ``a`` (U, in, r) and ``b`` (U, r, out).

    Source: LoRA, Hu et al. 2021, eq. 3; per-row factors as in Polytropon.
    """

    a: torch.Tensor
    b: torch.Tensor
    scale: float

    def of_rows(self, rows: torch.Tensor) -> Factors:
        """The factors of each row; ``rows`` (R,) indexes the tasks."""
        if self.a.shape[0] == 1:
            return self
        return Factors(self.a[rows], self.b[rows], self.scale)

    def apply(self, x: torch.Tensor, base: Linear) -> torch.Tensor:
        """The map of ``x`` (R, ..., in) with every row's delta."""
        y = base(x)
        b = self.b if self.scale == 1.0 else self.b * self.scale
        if self.a.shape[0] == 1:
            return y + (x @ self.a[0]) @ b[0]
        x_RSD = x.reshape(x.shape[0], -1, x.shape[-1])
        delta = torch.bmm(torch.bmm(x_RSD, repeated(self.a, x)), repeated(b, x))
        return y + delta.view(y.shape)


class Scales(NamedTuple):
    """``x *= v`` or ``y *= v`` with ``v`` (U, in) or (U, out). Source: IA3, Liu et al. 2022."""

    v: torch.Tensor
    side: Side

    def of_rows(self, rows: torch.Tensor) -> Scales:
        """The vectors of each row; ``rows`` (R,) indexes the tasks."""
        return self if self.v.shape[0] == 1 else Scales(self.v[rows], self.side)

    def apply(self, x: torch.Tensor, base: Linear) -> torch.Tensor:
        """The map of ``x`` (R, ..., in) with its input or output scaled row by row."""
        v = self.v if self.v.shape[0] == 1 else repeated(self.v, x)
        v = v.view(v.shape[0], *[1] * (x.dim() - 2), v.shape[-1])
        return base(x * v) if self.side == "input" else base(x) * v


class TokenMixture(NamedTuple):
    """``y += scale * sum_k w_k(x) (x a_k) b_k``: every token chooses its skills, tasks do not.

    ``a`` (K, in, r), ``b`` (K, r, out), unit ``prototypes`` (K, in); w is the softmax of
    ``|x . prototype|`` over the ``top_k`` largest, 0 elsewhere. Source: Arrow, Ostapenko et al.
    2024, with outputs mixed rather than factors.
    """

    a: torch.Tensor
    b: torch.Tensor
    prototypes: torch.Tensor
    top_k: int
    scale: float

    def of_rows(self, rows: torch.Tensor) -> TokenMixture:
        """The same for every row."""
        return self

    def apply(self, x: torch.Tensor, base: Linear) -> torch.Tensor:
        """The map of ``x`` (..., in) with every token's own mix."""
        logits = (x @ self.prototypes.T).abs()
        kept, chosen = logits.topk(min(self.top_k, logits.shape[-1]), -1)
        weights = torch.zeros_like(logits).scatter(-1, chosen, torch.softmax(kept, -1))
        inner = torch.einsum("...d,kdr->...kr", x, self.a) * weights.unsqueeze(-1)
        return base(x) + self.scale * torch.einsum("...kr,kro->...o", inner, self.b)


Effect = Factors | Scales | TokenMixture


def repeated(per_row: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """``per_row`` (R, ...) for the rows of ``x``: beam search repeats each row for its beams."""
    if x.shape[0] == per_row.shape[0]:
        return per_row
    return per_row.repeat_interleave(x.shape[0] // per_row.shape[0], 0)
