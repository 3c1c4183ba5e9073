"""The prefill step: new rows' inputs, packed without padding, through the first stack.

Rows are ordered by adapter so that tokens of one adapter are contiguous, and its factors run as
one small product a site.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import Tensor

from serving.engine.row import Row
from serving.engine.transformer.attention import PackedAttention
from serving.engine.weights import Weights
from serving.primitives.layout import PackedSite
from serving.primitives.plan import RunPlan


@dataclass(frozen=True, slots=True)
class Encoded:
    """Rows in packed order with their last hidden states (T, D); T is the sum of ``lengths``."""

    rows: list[Row]
    hidden: Tensor

    @property
    def lengths(self) -> list[int]:
        """Input tokens of each row."""
        return [row.num_input for row in self.rows]

    def generating(self) -> Encoded:
        """The rows that go on to decode, still in packed order."""
        is_kept = [row.request.kind == "generate" for row in self.rows]
        if all(is_kept):
            return self
        device = self.hidden.device
        counts = torch.tensor(self.lengths, device=device)
        is_token = torch.tensor(is_kept, device=device).repeat_interleave(counts)
        kept = [row for row, wanted in zip(self.rows, is_kept, strict=True) if wanted]
        return Encoded(kept, self.hidden[is_token])


class _Context:
    """Self-attention within the packed rows."""

    def __init__(self, attention: PackedAttention) -> None:
        self._attention = attention

    def attend_self(self, layer: int, qkv_T3I: Tensor) -> Tensor:
        return self._attention(qkv_T3I)

    def attend_cross(self, layer: int, q_TI: Tensor) -> Tensor:
        raise AssertionError("a stack that reads inputs has no cross attention")


def encode(weights: Weights, rows: Sequence[Row], dtype: torch.dtype) -> Encoded:
    """Run the encoder over the inputs of ``rows``; their adapters must be ready."""
    ordered = sorted(rows, key=_adapter)
    lengths = [row.num_input for row in ordered]
    stack = weights.stacks["encoder"]
    device = weights.device
    ids = torch.tensor([i for row in ordered for i in row.request.input_ids], device=device)
    positions = torch.cat([torch.arange(n, device=device) for n in lengths])
    bias = weights.biases["encoder"]
    attention = PackedAttention(stack.record, lengths, bias, dtype, device)
    plan = plan_of(weights.layout.packed, ordered)
    return Encoded(ordered, stack.forward(ids, positions, plan, _Context(attention)))


def plan_of(sites: Sequence[PackedSite], ordered: Sequence[Row]) -> RunPlan | None:
    """The plan of packed rows that are ordered by adapter; None when all are bare."""
    runs = []
    start = 0
    for adapter, group in groupby(ordered, key=_adapter):
        members = list(group)
        stop = start + sum(row.num_input for row in members)
        if adapter:
            runs.append((start, stop, members[0].prepared))
        start = stop
    return RunPlan(sites, runs) if runs else None


def _adapter(row: Row) -> str:
    return row.request.adapter or ""
