"""IA3: one vector per site that scales its input or output; its banks as in Poly and MHR.

Legend: P private tasks, K skills, H heads. Source: IA3, Liu et al. 2022; Poly-IA3 and MHR-IA3 as
in the MHR release.
"""

from __future__ import annotations

import torch
from torch import nn

from adapters_store.families import Site
from training.methods.base import MethodConfig, SiteMethod, check_heads
from training.methods.effects import Scales, Side
from training.methods.routing import RoutedSite


def _width(site: Site, side: Side) -> int:
    return site.in_features if side == "input" else site.out_features


class Ia3Site(SiteMethod):
    """``v`` (P, width), ones at the start; P is 1 when shared, else num_tasks."""

    def __init__(self, site: Site, config: MethodConfig) -> None:
        super().__init__(site)
        self.is_private, self.side = config.is_private, config.side_at(site)
        num_private = config.num_tasks if config.is_private else 1
        self.v = nn.Parameter(torch.ones(num_private, _width(site, self.side)))

    def effect(self, tasks: torch.Tensor) -> Scales:
        """The shared vector once, or each task's own."""
        return Scales(self.v[tasks] if self.is_private else self.v, self.side)


class MhrIa3Site(RoutedSite, SiteMethod):
    """Skills ``v`` (H, K, width/H), ones at the start, mixed per task and head."""

    def __init__(self, site: Site, config: MethodConfig) -> None:
        super().__init__(site)
        self.side = config.side_at(site)
        width, heads = _width(site, self.side), config.num_heads
        check_heads(heads, site, {self.side: width})
        self.v = nn.Parameter(torch.ones(heads, config.num_skills, width // heads))
        self.router = config.router()

    def effect(self, tasks: torch.Tensor) -> Scales:
        """The tasks' mixed vectors."""
        mixed = torch.einsum("uhk,hkw->uhw", self.weights(tasks), self.v)
        return Scales(mixed.flatten(1), self.side)
