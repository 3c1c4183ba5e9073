"""A backbone with a method injected at its sites: what the loop trains and evaluates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import nn

from adapters_store.families import Site
from training.context import TaskContext
from training.injection import inject
from training.methods import MethodConfig, SiteMethod, build_methods
from training.methods.routing import Router


class AdaptedModel(nn.Module):
    """``model`` (a transformers model) with a method per site, and heads per task if any.

    ``methods`` goes by canonical site name, in the order of ``sites``. ``heads[t]`` maps a pooled
    hidden state to task t's labels. ``trains_backbone`` leaves the backbone's own weights
    trainable (pretraining); otherwise they are frozen and dropout stays off.
    """

    def __init__(
        self,
        model: Any,
        sites: Sequence[Site],
        methods: Mapping[str, SiteMethod],
        *,
        trains_backbone: bool = False,
        num_labels: Sequence[int] = (),
    ) -> None:
        super().__init__()
        model.requires_grad_(trains_backbone)
        self.trains_backbone = trains_backbone
        self.context = TaskContext(torch.zeros(1, dtype=torch.long), torch.zeros(1).long())
        self.sites = inject(model, sites, methods, self.context)
        self.model = model
        hidden_size = model.config.hidden_size
        self.heads = nn.ModuleList(nn.Linear(hidden_size, n) for n in num_labels)

    @classmethod
    def build(cls, model: Any, sites: Sequence[Site], method: MethodConfig, **options: Any) -> Self:
        """The model with one fresh ``method`` per site; ``options`` as in the constructor."""
        return cls(model, sites, build_methods(sites, method), **options)

    def train(self, mode: bool = True) -> Self:
        """Enter training mode; a frozen backbone stays as it is served, without dropout."""
        super().train(mode and self.trains_backbone)
        for module in self.modules():
            if isinstance(module, Router):
                module.train(mode)
        return self

    def site_methods(self) -> dict[str, SiteMethod]:
        """The method's modules by canonical site name."""
        return {name: adapted.method for name, adapted in self.sites.items()}

    def head(self, task: int) -> nn.Linear:
        """Task ``task``'s classifier over the pooled hidden state."""
        head = self.heads[task]
        if not isinstance(head, nn.Linear):
            raise TypeError(f"head {task} is a {type(head).__name__}; expected Linear")
        return head

    def label_logits(
        self, task: int, hidden: torch.Tensor, attention_mask: torch.Tensor
    ) -> torch.Tensor:
        """Task ``task``'s logits (R, labels) over the mean of each row's tokens (R, S, D)."""
        mask = attention_mask.unsqueeze(-1).to(hidden.dtype)
        logits: torch.Tensor = self.head(task)((hidden * mask).sum(1) / mask.sum(1))
        return logits

    def num_trained(self) -> int:
        """The number of parameters that require gradients."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    def forward(self, task_of_row: torch.Tensor, **inputs: torch.Tensor) -> Any:
        """The backbone's forward with each row adapted to its task (R,)."""
        self.context.set(task_of_row)
        return self.model(**inputs)

    def encode(self, task_of_row: torch.Tensor, **inputs: torch.Tensor) -> Any:
        """The encoder's forward alone, of an encoder-decoder."""
        self.context.set(task_of_row)
        return self.model.get_encoder()(**inputs)

    @torch.no_grad()
    def generate(self, task_of_row: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """Greedy generation of a mixed batch: token ids (R, T) without start token or prompt."""
        self.context.set(task_of_row)
        ids: torch.Tensor = self.model.generate(**inputs)
        is_seq2seq = self.model.config.is_encoder_decoder
        return ids[:, 1 if is_seq2seq else inputs["input_ids"].shape[1] :]
