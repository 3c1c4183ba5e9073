"""``head``: the row's own classifier over its pooled hidden state.

Shapes: ``R`` rows, ``T`` tokens, ``D`` hidden width, ``L`` labels of a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from serving.primitives.prepared import Prepared, Target

Pooling = Literal["mean", "cls"]


@dataclass(frozen=True, slots=True)
class Head:
    """``weight`` (L, D) and ``bias`` (L,), float32, over the pooled hidden state."""

    weight: Tensor
    bias: Tensor
    pooling: Pooling

    @property
    def num_labels(self) -> int:
        """L."""
        return self.weight.shape[0]

    @property
    def num_bytes(self) -> int:
        """Bytes of both tensors."""
        return self.weight.nbytes + self.bias.nbytes


def unserved(part: Any) -> str | None:
    """What of a head does not run: another pooling, or a layer of its own before the labels."""
    if part.pooling not in get_args(Pooling):
        return f"pooling {part.pooling!r}; served: {', '.join(get_args(Pooling))}"
    if part.dense_size is not None:
        return f"a dense layer of width {part.dense_size} before the labels; served: none"
    return None


def prepare(parts: Sequence[Any], tensors: Mapping[str, Tensor], target: Target) -> Prepared:
    """The head of an artefact; heads run in float32 whatever the backbone's dtype."""
    (part,) = parts
    weight = tensors["head/weight"].to(target.device, torch.float32)
    bias = tensors["head/bias"].to(target.device, torch.float32)
    return Prepared(head=Head(weight.contiguous(), bias, part.pooling))


def pool(hidden_TD: Tensor, lengths: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Mean and first-token states of packed rows, float32: two (R, D) tensors."""
    device = hidden_TD.device
    row_of = torch.repeat_interleave(
        torch.arange(len(lengths), device=device), torch.tensor(lengths, device=device)
    )
    hidden = hidden_TD.float()
    total = hidden.new_zeros(len(lengths), hidden.shape[1]).index_add_(0, row_of, hidden)
    counts = torch.tensor(lengths, device=device, dtype=torch.float32).unsqueeze(1)
    starts = torch.tensor([0, *lengths[:-1]], device=device).cumsum(0)
    return total / counts, hidden.index_select(0, starts)


def reference(hidden_TD: Tensor, lengths: Sequence[int], heads: Sequence[Head]) -> list[Tensor]:
    """Scores of every row, one at a time: a (L,) tensor each."""
    scores, start = [], 0
    for length, head in zip(lengths, heads, strict=True):
        row = hidden_TD[start : start + length].float()
        state = row.mean(dim=0) if head.pooling == "mean" else row[0]
        scores.append(head.weight @ state + head.bias)
        start += length
    return scores


def score(mean_RD: Tensor, first_RD: Tensor, heads: Sequence[Head]) -> list[Tensor]:
    """Scores of every row in one batched product over zero-padded heads: a (L,) tensor each."""
    num_labels = [head.num_labels for head in heads]
    width = max(num_labels)
    weight_RLD = mean_RD.new_zeros(len(heads), width, mean_RD.shape[1])
    bias_RL = mean_RD.new_zeros(len(heads), width)
    for i, head in enumerate(heads):
        weight_RLD[i, : head.num_labels] = head.weight
        bias_RL[i, : head.num_labels] = head.bias
    is_mean = torch.tensor([h.pooling == "mean" for h in heads], device=mean_RD.device)
    state_RD = torch.where(is_mean.unsqueeze(1), mean_RD, first_RD)
    scores_RL = torch.baddbmm(bias_RL.unsqueeze(2), weight_RLD, state_RD.unsqueeze(2)).squeeze(2)
    return [scores_RL[i, :n] for i, n in enumerate(num_labels)]
