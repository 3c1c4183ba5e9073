"""Routing: from a task's logits to its weights over the skills, per head.

Legend: T tasks, U tasks of a batch, H heads, K skills. Source: Polytropon (Ponti et al. 2022) for
the sigmoid gate and its relaxed Bernoulli form, MHR (Caccia et al. 2023) for the deterministic one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import nn

from adapters_store.families import Site
from adapters_store.lazy import resolve

Granularity = Literal["site", "block", "layer", "stack", "global"]
Gate = Callable[[torch.Tensor, bool], torch.Tensor]

GATES: dict[str, str] = {
    "sigmoid": "training.methods.routing:sigmoid_gate",
    "softmax": "training.methods.routing:softmax_gate",
    "relaxed_bernoulli": "training.methods.routing:relaxed_bernoulli_gate",
    "straight_through": "training.methods.routing:straight_through_gate",
}
_EPSILON = 1e-12
_INIT = 1e-3
_RANDOM_STD = 2.0
_TEMPERATURE = 1.0
_STOCHASTIC = frozenset({"relaxed_bernoulli"})


def _normalised(gates: torch.Tensor) -> torch.Tensor:
    return gates / (gates.sum(-1, keepdim=True) + _EPSILON)


def sigmoid_gate(logits: torch.Tensor, is_training: bool = False) -> torch.Tensor:
    """Sigmoid, normalised over the skills; the same in training and evaluation."""
    return _normalised(torch.sigmoid(logits))


def softmax_gate(logits: torch.Tensor, is_training: bool = False) -> torch.Tensor:
    """Softmax over the skills."""
    return torch.softmax(logits, -1)


def relaxed_bernoulli_gate(logits: torch.Tensor, is_training: bool = False) -> torch.Tensor:
    """A relaxed Bernoulli draw (temperature 1) while training, the plain sigmoid otherwise."""
    if is_training:
        uniform = torch.rand_like(logits).clamp(1e-6, 1 - 1e-6)
        logits = (logits + torch.logit(uniform)) / _TEMPERATURE
    return _normalised(torch.sigmoid(logits))


def straight_through_gate(logits: torch.Tensor, is_training: bool = False) -> torch.Tensor:
    """Skills on or off, with the sigmoid's gradient; no skill on gives the sigmoid itself."""
    soft = torch.sigmoid(logits)
    hard = (soft > 0.5).to(soft.dtype)
    hard = torch.where(hard.sum(-1, keepdim=True) > 0, hard, soft)
    return _normalised(hard + soft - soft.detach())


class Router(nn.Module):
    """Logits (T, H, K) and the gate that makes weights of them.

    Logits start in U(-1e-3, 1e-3), the uniform mix; a ``is_random`` router draws N(0, 2) and never
    learns. One router may serve several sites.
    """

    def __init__(
        self, num_tasks: int, num_heads: int, num_skills: int, gate: str, *, is_random: bool = False
    ) -> None:
        super().__init__()
        self._gate: Gate = resolve(GATES, gate, "routing gate")
        self._is_stochastic = gate in _STOCHASTIC
        logits = torch.empty(num_tasks, num_heads, num_skills)
        if is_random:
            logits.normal_(0.0, _RANDOM_STD)
        else:
            logits.uniform_(-_INIT, _INIT)
        self.logits = nn.Parameter(logits, requires_grad=not is_random)

    def forward(self, tasks: torch.Tensor) -> torch.Tensor:
        """Weights (U, H, K) of the tasks (U,), after the gate.

        A gate that draws numbers while training draws them for every task, so that the draws of a
        task do not depend on which others share its batch.
        """
        if self._is_stochastic and self.training:
            return self._gate(self.logits, True)[tasks]
        return self._gate(self.logits[tasks], self.training)


def bin_of(site: Site, granularity: Granularity) -> str:
    """The name of the group of sites with which this site shares its router."""
    match granularity:
        case "site":
            return site.name
        case "block":
            return site.name.rpartition(".")[0]
        case "layer":
            return f"{site.stack}.{site.layer}"
        case "stack":
            return site.stack
        case "global":
            return ""


def share_routers(routed: Iterable[tuple[Site, RoutedSite]], granularity: Granularity) -> None:
    """Give the sites of each group the router of the group's first site."""
    first: dict[str, Router] = {}
    for site, method in routed:
        method.router = first.setdefault(bin_of(site, granularity), method.router)


class RoutedSite(nn.Module):
    """What mixes skills by a router."""

    router: Router

    @property
    def logits(self) -> nn.Parameter:
        """The router's logits (T, H, K)."""
        return self.router.logits

    def weights(self, tasks: torch.Tensor) -> torch.Tensor:
        """Routing weights (U, H, K) of the tasks, after the gate."""
        weights: torch.Tensor = self.router(tasks)
        return weights
