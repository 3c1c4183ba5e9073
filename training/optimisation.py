"""Parameter groups with their learning rates, and the schedule they share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from training.model import AdaptedModel
from training.recipe import TrainSection


def parameter_groups(model: AdaptedModel, train: TrainSection) -> list[dict[str, Any]]:
    """Router logits, adapters and heads, and the backbone, each with its own learning rate.

    The router takes no weight decay: decay would pull every task to the uniform mix.
    """
    groups: dict[str, list[torch.nn.Parameter]] = {"router": [], "adapter": [], "backbone": []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.endswith(".logits"):
            groups["router"].append(parameter)
        elif ".method." in name or name.startswith("heads."):
            groups["adapter"].append(parameter)
        else:
            groups["backbone"].append(parameter)
    rates = {
        "router": (train.router_learning_rate, 0.0),
        "adapter": (train.learning_rate, train.weight_decay),
        "backbone": (train.backbone_learning_rate, train.weight_decay),
    }
    return [
        {"params": found, "lr": rates[name][0], "weight_decay": rates[name][1], "group": name}
        for name, found in groups.items()
        if found
    ]


def schedule(train: TrainSection) -> Callable[[int], float]:
    """Linear warm-up from zero, then linear decay to zero at the last step."""
    warmup = max(1, round(train.steps * train.warmup_ratio))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return max(0.0, (train.steps - step) / max(1, train.steps - warmup))

    return factor
