"""Generated LoRA: a small network per site writes each task's factors from its embedding.

Legend: T tasks, U tasks of a batch, E embedding size. After HyperFormer (Mahabadi et al. 2021) in
the form that the MHR release compares with: LoRA factors instead of bottleneck adapters.
"""

from __future__ import annotations

import torch
from torch import nn

from adapters_store.families import Site
from training.methods.base import LowRankSite, MethodConfig
from training.methods.effects import Factors


class HyperSite(LowRankSite):
    """``task`` (T, E) is shared by all sites; ``hidden``, ``to_a`` and ``to_b`` are the site's own.

    ``to_b`` starts at zero, so that no task changes the backbone at first.
    """

    def __init__(self, site: Site, config: MethodConfig) -> None:
        super().__init__(site)
        size, rank = config.embedding_size, config.rank
        self.rank, self.scale = rank, config.scale
        self.task = nn.Embedding(config.num_tasks, size)
        self.hidden = nn.Linear(size, size)
        self.to_a = nn.Linear(size, site.in_features * rank)
        self.to_b = nn.Linear(size, rank * site.out_features)
        nn.init.zeros_(self.to_b.weight)
        nn.init.zeros_(self.to_b.bias)

    def factors(self, tasks: torch.Tensor) -> Factors:
        """The generated factors of the tasks."""
        h_UE = torch.relu(self.hidden(self.task(tasks)))
        a = self.to_a(h_UE).view(len(tasks), self.site.in_features, self.rank)
        b = self.to_b(h_UE).view(len(tasks), self.rank, self.site.out_features)
        return Factors(a, b, self.scale)
