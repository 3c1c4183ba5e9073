"""What a training method is: learnable parameters per site, and verbs that compile them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from adapters_store.families import Site
from adapters_store.manifest import BankPart, LowRankPart, Part

Factors = tuple[torch.Tensor, torch.Tensor, float]
"""``a`` (U, in, r), ``b`` (U, r, out) and the scale of ``y += scale * (x a) b``, one per task."""

Compiled = tuple[Part, dict[str, torch.Tensor]]
"""One primitive of an artefact and its tensors by name."""


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
    """A method at one site. Subclasses give the factors of tasks; compiling is common to all."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def factors(self, tasks: torch.Tensor) -> Factors:
        """Factors of the tasks (U,), differentiable in the method's parameters."""
        raise TypeError(f"{type(self).__name__} does not define factors()")

    @torch.no_grad()
    def compile_task(self, task: int) -> Compiled:
        """Task ``task`` as one ``low_rank``: exact for every method."""
        a, b, scale = self.factors(torch.tensor([task]))
        name = self.site.name
        part = LowRankPart(site=name, rank=a.shape[-1], scale=scale)
        return part, {f"{name}/low_rank/a": a[0].clone(), f"{name}/low_rank/b": b[0].clone()}


class BankMethod(SiteMethod):
    """A method whose tasks mix one shared bank: ``a`` (H, K, in/H, r), ``b`` (H, K, r, out/H)."""

    a: nn.Parameter
    b: nn.Parameter
    logits: nn.Parameter
    scale: float

    def weights(self, tasks: torch.Tensor) -> torch.Tensor:
        """Routing weights (U, H, K) of the tasks, after the gate."""
        raise TypeError(f"{type(self).__name__} does not define weights()")

    def compile_bank(self) -> Compiled:
        """The shared factors as one ``mixture``."""
        heads, skills, _, rank = self.a.shape
        name = self.site.name
        part = BankPart(site=name, rank=rank, num_skills=skills, num_heads=heads, scale=self.scale)
        tensors = {f"{name}/mixture/a": self.a.detach(), f"{name}/mixture/b": self.b.detach()}
        return part, tensors


def uniform_init(shape: tuple[int, ...], in_features: int) -> nn.Parameter:
    """U(-b, b) with b = 1 / sqrt(3 * in): the MHR release's draw, independent per skill."""
    bound = 1.0 / math.sqrt(3.0 * in_features)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
