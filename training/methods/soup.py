"""A learned average of adapters: one weight for each adapter and site, nothing else.

Legend: K adapters, r rank. Source: LoRA Soups, Prabhakar et al. 2024: the updates are averaged, not
the factors, so that no adapter's ``a`` meets another's ``b``.
"""

from __future__ import annotations

import torch
from torch import nn

from adapters_store.families import Site
from adapters_store.manifest import LowRankPart
from training.methods.base import Compiled, LowRankSite
from training.methods.effects import Factors


class SoupSite(LowRankSite):
    """Fixed adapters ``a`` (K, in, r), ``b`` (K, r, out) and learnt ``logits`` (K,).

    The update is ``sum_k softmax(logits)_k a_k b_k``. Logits start at zero: the uniform average.
    """

    a: torch.Tensor
    b: torch.Tensor

    def __init__(self, site: Site, a: torch.Tensor, b: torch.Tensor, scale: float) -> None:
        super().__init__(site)
        self.scale = scale
        self.register_buffer("a", a.transpose(0, 1).flatten(1)[None], persistent=False)
        self.register_buffer("b", b, persistent=False)
        self.logits = nn.Parameter(torch.zeros(len(a)))

    def factors(self, tasks: torch.Tensor) -> Factors:
        """One pair of rank K * r for all tasks."""
        b = torch.softmax(self.logits, 0).view(-1, 1, 1) * self.b
        return Factors(self.a, b.flatten(0, 1)[None], self.scale)

    @torch.no_grad()
    def compile_task(self, task: int) -> Compiled:
        """One ``low_rank`` part, of rank K * r or of the site's narrower side if that is less.

        The product has no higher rank than that side: the other factor takes it up whole.
        """
        part, tensors = super().compile_task(task)
        widths = (self.site.in_features, self.site.out_features)
        rank, stem = min(widths), f"{self.site.name}/low_rank"
        if not isinstance(part, LowRankPart) or part.rank <= rank:
            return part, tensors
        product, one = tensors[f"{stem}/a"] @ tensors[f"{stem}/b"], torch.eye(rank)
        a, b = (one, product) if widths[0] == rank else (product, one)
        return part.model_copy(update={"rank": rank}), {f"{stem}/a": a, f"{stem}/b": b}
