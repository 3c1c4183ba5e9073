"""What a training method is: learnable parameters per site, and one verb that compiles them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from adapters_store.families import Site

Factors = tuple[torch.Tensor, torch.Tensor, float]
"""``a`` (U, in, r), ``b`` (U, r, out) and the scale of ``y += scale * (x a) b``, one per task."""


@dataclass(frozen=True)
class MethodConfig:
    """The free choices of a method. ``alpha`` None means alpha = rank, so the scale is 1.

    ``num_tasks`` counts the tasks trained together; LoRA with ``is_private`` keeps one per task.
    """

    name: str
    rank: int = 8
    alpha: float | None = None
    num_skills: int = 8
    num_heads: int = 4
    num_tasks: int = 1
    is_private: bool = False
    gate: Literal["sigmoid", "softmax"] = "sigmoid"

    @property
    def scale(self) -> float:
        """The factor in front of (x a) b: alpha / rank."""
        return 1.0 if self.alpha is None else self.alpha / self.rank


class SiteMethod(nn.Module):
    """A method at one site. Subclasses give the factors of tasks and compile to plain tensors."""

    def __init__(self, site: Site, config: MethodConfig) -> None:
        super().__init__()
        self.site = site
        self.config = config

    def factors(self, tasks: torch.Tensor) -> Factors:
        """Factors of the tasks (U,), differentiable in the method's parameters."""
        raise TypeError(f"{type(self).__name__} does not define factors()")

    @torch.no_grad()
    def low_rank(self, task: int) -> Factors:
        """Task ``task`` as one exact low_rank: ``a`` (in, r), ``b`` (r, out), scale."""
        a, b, scale = self.factors(torch.tensor([task], device=next(self.parameters()).device))
        return a[0].detach().clone(), b[0].detach().clone(), scale


def uniform_init(shape: tuple[int, ...], in_features: int) -> nn.Parameter:
    """U(-b, b) with b = 1 / sqrt(3 * in): the MHR release's draw, independent per skill."""
    bound = 1.0 / math.sqrt(3.0 * in_features)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
