"""Fixed effects: a task read back from its artefacts, for evaluation."""

from __future__ import annotations

import torch

from adapters_store.families import Site
from training.methods.base import LowRankSite, SiteMethod
from training.methods.effects import Factors, Scales, Side


class FixedSite(LowRankSite):
    """One task's factors ``a`` (in, r) and ``b`` (r, out) without parameters."""

    a: torch.Tensor
    b: torch.Tensor

    def __init__(self, site: Site, a: torch.Tensor, b: torch.Tensor, scale: float) -> None:
        super().__init__(site)
        self.scale = scale
        self.register_buffer("a", a, persistent=False)
        self.register_buffer("b", b, persistent=False)

    def factors(self, tasks: torch.Tensor) -> Factors:
        """The same pair for every task."""
        return Factors(self.a[None], self.b[None], self.scale)


class FixedScale(SiteMethod):
    """One task's vector ``v`` (width,) without parameters."""

    v: torch.Tensor

    def __init__(self, site: Site, v: torch.Tensor, side: Side) -> None:
        super().__init__(site)
        self.side = side
        self.register_buffer("v", v, persistent=False)

    def effect(self, tasks: torch.Tensor) -> Scales:
        """The same vector for every task."""
        return Scales(self.v[None], self.side)
