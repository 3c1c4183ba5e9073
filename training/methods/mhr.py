"""Multi-Head Adapter Routing and its one-head case, Poly: skills mixed per task and head.

Legend: K skills, H heads, U tasks, r rank. Source: Caccia et al. 2023 (MHR), Ponti et al. 2022
(Polytropon). Heads cut ``a`` along the input and ``b`` along the output; the same weights mix both.
"""

from __future__ import annotations

import torch
from torch import nn

from adapters_store.errors import UsageError
from adapters_store.families import Site
from training.methods.base import BankMethod, Factors, MethodConfig, uniform_init

_EPSILON = 1e-12
_ROUTER_INIT = 1e-3


def gate(logits: torch.Tensor, kind: str = "sigmoid") -> torch.Tensor:
    """Routing weights from logits (..., K): sigmoid then normalised over skills, or softmax."""
    if kind == "softmax":
        return torch.softmax(logits, -1)
    weights = torch.sigmoid(logits)
    return weights / (weights.sum(-1, keepdim=True) + _EPSILON)


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
    """A bank ``a`` (H, K, in/H, r), ``b`` (H, K, r, out/H) and router ``logits`` (T, H, K)."""

    def __init__(self, site: Site, config: MethodConfig) -> None:
        super().__init__(site)
        self.gate_kind, self.scale = config.gate, config.scale
        heads, skills, rank = config.num_heads, config.num_skills, config.rank
        for side, width in (("in", site.in_features), ("out", site.out_features)):
            if width % heads:
                raise UsageError(
                    f"num_heads {heads} does not divide the {side}put width {width} of site "
                    f"{site.name}; choose a divisor of both widths"
                )
        self.a = uniform_init((heads, skills, site.in_features // heads, rank), site.in_features)
        self.b = nn.Parameter(torch.zeros(heads, skills, rank, site.out_features // heads))
        self.logits = nn.Parameter(
            torch.empty(config.num_tasks, heads, skills).uniform_(-_ROUTER_INIT, _ROUTER_INIT)
        )

    def weights(self, tasks: torch.Tensor) -> torch.Tensor:
        """Routing weights (U, H, K) of the tasks, after the gate."""
        return gate(self.logits[tasks], self.gate_kind)

    def factors(self, tasks: torch.Tensor) -> Factors:
        """The tasks' composed factors."""
        a, b = compose(self.weights(tasks), self.a, self.b)
        return a, b, self.scale
