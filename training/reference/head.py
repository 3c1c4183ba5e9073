"""``head``: logits of a task's own classifier over the pooled last hidden state."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional

from adapters_store.errors import UsageError
from adapters_store.primitives.head import BIAS, DENSE_BIAS, DENSE_WEIGHT, WEIGHT, HeadPart
from training.reference.stage import Stage


def install(parts: Sequence[HeadPart], stage: Stage) -> None:
    """Leave the head with the stage; raises IncompatibleError where its pooler is missing."""
    for part in parts:
        if part.pooling == "pooled":
            stage.module(str(stage.shapes.anatomy.pooler_path))
        stage.head = part


def logits(stage: Stage, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Logits (R, labels) of the last hidden state (R, P + T, D) under the stage's head.

    ``mask`` (R, T) is 1 for tokens and 0 for padding on either side; the P rows in front are a
    prompt's. Raises UsageError where there is no head, or where the two do not fit.
    """
    part, tensors = stage.head, stage.tensors
    if part is None:
        raise UsageError("the artefact has no head")
    pooled = _pool(part, stage, hidden, mask.to(hidden.device))
    if part.dense_size is not None:
        pooled = torch.tanh(functional.linear(pooled, tensors[DENSE_WEIGHT], tensors[DENSE_BIAS]))
    return functional.linear(pooled, tensors[WEIGHT], tensors[BIAS])


def _pool(part: HeadPart, stage: Stage, hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    num_rows = hidden.shape[1] - mask.shape[1]
    if num_rows not in (0, *stage.prompt_rows.values()):
        raise UsageError(
            f"the hidden state has {hidden.shape[1]} rows and the mask {mask.shape[1]}; "
            f"rows of prompts in front: {stage.prompt_rows or 'none'}"
        )
    if part.pooling == "pooled":
        pooled: torch.Tensor = stage.module(str(stage.shapes.anatomy.pooler_path))(hidden)
        return pooled
    if part.pooling == "cls" and num_rows:
        return hidden[:, 0]
    tokens = hidden[:, num_rows:]
    if part.pooling == "mean":
        weights = mask.unsqueeze(-1).to(hidden.dtype)
        return (tokens * weights).sum(1) / weights.sum(1)
    column = torch.arange(mask.shape[1], device=mask.device).expand_as(mask)
    if part.pooling == "cls":
        index = column.masked_fill(mask == 0, mask.shape[1]).amin(1)
    else:
        index = column.masked_fill(mask == 0, -1).amax(1)
    return tokens[torch.arange(len(tokens), device=mask.device), index]
