"""LoRA: one low-rank pair per site, shared by all tasks or private to each."""

from __future__ import annotations

import torch
from torch import nn

from adapters_store.families import Site
from training.methods.base import LowRankSite, MethodConfig, uniform_init
from training.methods.effects import Factors


class LoraSite(LowRankSite):
    """``a`` (P, in, r) uniform and ``b`` (P, r, out) zero; P is 1 when shared, else num_tasks.

    Source: Hu et al. 2021.
    """

    def __init__(self, site: Site, config: MethodConfig) -> None:
        super().__init__(site)
        self.is_private, self.scale = config.is_private, config.scale
        num_private = config.num_tasks if config.is_private else 1
        self.a = uniform_init((num_private, site.in_features, config.rank), site.in_features)
        self.b = nn.Parameter(torch.zeros(num_private, config.rank, site.out_features))

    def factors(self, tasks: torch.Tensor) -> Factors:
        """The shared pair once, or each task's own."""
        if not self.is_private:
            return Factors(self.a, self.b, self.scale)
        return Factors(self.a[tasks], self.b[tasks], self.scale)
