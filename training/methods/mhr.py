"""Multi-Head Adapter Routing and its one-head case, Poly: skills mixed per task and head.

Legend: K skills, H heads, U tasks, r rank. Source: Caccia et al. 2023 (MHR), Ponti et al. 2022
(Polytropon). Heads cut ``a`` along the input and ``b`` along the output; the same weights mix both.
"""

from __future__ import annotations

import torch
from torch import nn

from adapters_store.families import Site
from training.methods.base import BankMethod, MethodConfig, check_heads, uniform_init
from training.methods.effects import Factors


def compose(
    weights_UHK: torch.Tensor, a_HKDr: torch.Tensor, b_HKrO: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Each task's factors: ``a`` (U, in, r) and ``b`` (U, r, out) from its routing weights.

    a_t = concat_h sum_k w[t,h,k] a[h,k] along the input; b_t likewise along the output.
    """
    num_tasks, num_heads, num_skills = weights_UHK.shape
    _, _, width, rank = a_HKDr.shape
    w_HUK = weights_UHK.transpose(0, 1)
    a = torch.bmm(w_HUK, a_HKDr.reshape(num_heads, num_skills, -1))
    a = a.view(num_heads, num_tasks, width, rank).transpose(0, 1)
    b = torch.bmm(w_HUK, b_HKrO.reshape(num_heads, num_skills, -1))
    b = b.view(num_heads, num_tasks, rank, -1).permute(1, 2, 0, 3)
    return a.reshape(num_tasks, num_heads * width, rank), b.reshape(num_tasks, rank, -1)


@torch.no_grad()
def average(a_HKDr: torch.Tensor, b_HKrO: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The uniform average of a bank's skills, ``a`` (in, r) and ``b`` (r, out): the -mu start."""
    heads, skills = a_HKDr.shape[:2]
    a, b = compose(a_HKDr.new_full((1, heads, skills), 1.0 / skills), a_HKDr, b_HKrO)
    return a[0], b[0]


class MhrSite(BankMethod):
    """A bank ``a`` (H, K, in/H, r), ``b`` (H, K, r, out/H) and a router over it."""

    def __init__(self, site: Site, config: MethodConfig) -> None:
        super().__init__(site)
        self.scale = config.scale
        heads, skills, rank = config.num_heads, config.num_skills, config.rank
        check_heads(heads, site, {"input": site.in_features, "output": site.out_features})
        self.a = uniform_init((heads, skills, site.in_features // heads, rank), site.in_features)
        self.b = nn.Parameter(torch.zeros(heads, skills, rank, site.out_features // heads))
        self.router = config.router()

    def factors(self, tasks: torch.Tensor) -> Factors:
        """The tasks' composed factors."""
        a, b = compose(self.weights(tasks), self.a, self.b)
        return Factors(a, b, self.scale)
