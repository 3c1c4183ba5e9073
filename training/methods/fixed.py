"""Fixed factors: a task read back from its artefacts, for evaluation."""

from __future__ import annotations

import torch

from adapters_store.families import Site
from training.methods.base import Factors, SiteMethod


class FixedSite(SiteMethod):
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
        return (
            self.a[None].expand(len(tasks), -1, -1),
            self.b[None].expand(len(tasks), -1, -1),
            (self.scale),
        )
