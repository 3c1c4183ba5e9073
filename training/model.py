"""A backbone with a method injected at its sites: what the loop trains and evaluates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from adapters_store.families import Site
from training.context import TaskContext
from training.injection import inject
from training.methods import MethodConfig, SiteMethod, build_site_method


class AdaptedModel(nn.Module):
    """``model`` (a transformers model) with ``method`` at ``sites``, and heads per task if any.

    ``heads[t]`` maps a pooled hidden state to task t's labels. ``trains_backbone`` leaves the
    backbone's own weights trainable (pretraining); otherwise they are frozen.
    """

    def __init__(
        self,
        model: Any,
        sites: Sequence[Site],
        method: MethodConfig,
        *,
        trains_backbone: bool = False,
        num_labels: Sequence[int] = (),
        hidden_size: int = 0,
    ) -> None:
        super().__init__()
        model.requires_grad_(trains_backbone)
        self.context = TaskContext(torch.zeros(1, dtype=torch.long), torch.zeros(1).long())
        self.method = method
        methods: dict[str, SiteMethod] = {s.name: build_site_method(s, method) for s in sites}
        self.sites = inject(model, sites, methods, self.context)
        self.model = model
        self.heads = nn.ModuleList(nn.Linear(hidden_size, n) for n in num_labels)

    def site_methods(self) -> dict[str, SiteMethod]:
        """The method's modules by canonical site name."""
        return {name: adapted.method for name, adapted in self.sites.items()}

    def forward(self, task_of_row: torch.Tensor, **inputs: torch.Tensor) -> Any:
        """The backbone's forward with each row adapted to its task (R,)."""
        self.context.set(task_of_row)
        return self.model(**inputs)

    @torch.no_grad()
    def generate(self, task_of_row: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """Greedy generation of a mixed batch: token ids (R, T) without the start token."""
        self.context.set(task_of_row)
        ids: torch.Tensor = self.model.generate(**inputs)
        return ids[:, 1:]
