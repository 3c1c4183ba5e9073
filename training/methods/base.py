"""What a training method is: learnable parameters per site, and verbs that compile them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from adapters_store.errors import UsageError
from adapters_store.families import Site
from adapters_store.manifest import BankPart, LowRankPart, Part
from adapters_store.primitives.scale import ScalePart
from training.methods.effects import Effect, Factors, Scales, Side
from training.methods.routing import Granularity, RoutedSite, Router

Compiled = tuple[Part, dict[str, torch.Tensor]]
"""One primitive of an artefact and its tensors by name."""


@dataclass(frozen=True)
class MethodConfig:
    """The free choices of a method. ``alpha`` None means alpha = rank, so the scale is 1.

    ``num_tasks`` counts the tasks trained together; LoRA and IA3 with ``is_private`` keep one
    adapter per task. ``gate`` is a row of :data:`~training.methods.routing.GATES`; ``granularity``
    says which sites share a router; ``has_random_routing`` draws it once and never trains it.
    ``embedding_size`` is that of a generated adapter's task embedding; ``side`` chooses what IA3
    scales, None for the input of ``ffn.out`` and the output of every other site. Sizes that a
    method does not have are left unused: Poly has one head, IA3 no rank, LoRA no skills.
    """

    name: str
    rank: int = 8
    alpha: float | None = None
    num_skills: int = 8
    num_heads: int = 4
    num_tasks: int = 1
    is_private: bool = False
    gate: str = "sigmoid"
    granularity: Granularity = "site"
    has_random_routing: bool = False
    embedding_size: int = 16
    side: Literal["input", "output"] | None = None

    @property
    def scale(self) -> float:
        """The factor in front of (x a) b: alpha / rank."""
        return 1.0 if self.alpha is None else self.alpha / self.rank

    def router(self) -> Router:
        """A fresh router over this method's tasks, heads and skills."""
        return Router(
            self.num_tasks,
            self.num_heads,
            self.num_skills,
            self.gate,
            is_random=self.has_random_routing,
        )

    def side_at(self, site: Site) -> Side:
        """What a scale multiplies at that site."""
        if self.side is not None:
            return self.side
        return "input" if site.role == "ffn.out" else "output"


class SiteMethod(nn.Module):
    """A method at one site. Subclasses give the effect of tasks; compiling is common to all."""

    def __init__(self, site: Site) -> None:
        super().__init__()
        self.site = site

    def effect(self, tasks: torch.Tensor) -> Effect:
        """What the tasks (U,) do at the site, differentiable in the method's parameters."""
        raise TypeError(f"{type(self).__name__} does not define effect()")

    @torch.no_grad()
    def compile_task(self, task: int) -> Compiled:
        """Task ``task`` as one primitive: exact for every method whose tasks choose, not tokens.

        Raises UsageError for a method that mixes token by token, which no primitive holds.
        """
        effect = self.effect(torch.tensor([task]))
        name = self.site.name
        match effect:
            case Factors(a, b, scale):
                part = LowRankPart(site=name, rank=a.shape[-1], scale=scale)
                stem = f"{name}/low_rank"
                return part, {f"{stem}/a": a[0].clone(), f"{stem}/b": b[0].clone()}
            case Scales(v, side):
                return ScalePart(site=name, side=side), {f"{name}/scale/{side}": v[0].clone()}
        raise UsageError(
            f"{type(self).__name__} routes every token by itself, which no primitive can hold",
            hint="Publish the library's average, or a routing learnt over its bank.",
        )


class LowRankSite(SiteMethod):
    """A method whose effect is low-rank factors."""

    def effect(self, tasks: torch.Tensor) -> Factors:
        """The factors of the tasks."""
        return self.factors(tasks)

    def factors(self, tasks: torch.Tensor) -> Factors:
        """``a`` (U, in, r), ``b`` (U, r, out) and the scale, one per task or one for all."""
        raise TypeError(f"{type(self).__name__} does not define factors()")


class BankMethod(RoutedSite, LowRankSite):
    """A method whose tasks mix one shared bank: ``a`` (H, K, in/H, r), ``b`` (H, K, r, out/H)."""

    a: nn.Parameter
    b: nn.Parameter
    scale: float

    def compile_bank(self) -> Compiled:
        """The shared factors as one ``mixture``."""
        heads, skills, _, rank = self.a.shape
        name = self.site.name
        part = BankPart(site=name, rank=rank, num_skills=skills, num_heads=heads, scale=self.scale)
        tensors = {f"{name}/mixture/a": self.a.detach(), f"{name}/mixture/b": self.b.detach()}
        return part, tensors


def check_heads(num_heads: int, site: Site, widths: Mapping[str, int]) -> None:
    """Raise UsageError where the number of heads does not divide a width of the site."""
    for side, width in widths.items():
        if width % num_heads:
            raise UsageError(
                f"num_heads {num_heads} does not divide the {side} width {width} of site "
                f"{site.name}; choose a divisor of {' and '.join(map(str, widths.values()))}"
            )


def uniform_init(shape: tuple[int, ...], in_features: int) -> nn.Parameter:
    """U(-b, b) with b = 1 / sqrt(3 * in): the MHR release's draw, independent per skill."""
    bound = 1.0 / math.sqrt(3.0 * in_features)
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
