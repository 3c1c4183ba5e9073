"""The prefill step: inputs of new rows, packed without padding, through the stack that reads them.

Rows are ordered by adapter so that tokens of one adapter are contiguous, and its factors run as
one small product a site.

Shapes: ``T`` tokens of the step, ``D`` hidden width, ``W`` keys and values of a position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

import torch
from torch import Tensor

from serving.engine.row import Row
from serving.engine.transformer.attention import PackedAttention
from serving.engine.transformer.stack import Stack
from serving.engine.weights import Weights
from serving.primitives.layout import PackedSite
from serving.primitives.plan import RunPlan


@dataclass(frozen=True, slots=True)
class Encoded:
    """Rows in packed order with their last hidden states (T, D); T is the sum of ``lengths``.

    ``kv`` has the keys and values (T, W) of every layer where the stack goes on to decode.
    """

    rows: list[Row]
    hidden: Tensor
    kv: list[Tensor]

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
        if not kept:
            return Encoded([], self.hidden[:0], [])
        return Encoded(kept, self.hidden[is_token], [kv[is_token] for kv in self.kv])

    def last_hidden(self) -> Tensor:
        """The hidden state (R, D) of each row's last token."""
        ends = torch.tensor(self.lengths, device=self.hidden.device).cumsum(0) - 1
        return self.hidden.index_select(0, ends)


class _Context:
    """Self-attention within the packed rows; keys and values are kept where ``keeps_kv``."""

    def __init__(self, stack: Stack, attention: PackedAttention, *, keeps_kv: bool) -> None:
        self._attention = attention
        self._width = stack.query_width
        self._keeps_kv = keeps_kv
        self.kv: list[Tensor] = []

    def attend_self(self, layer: int, qkv_TE: Tensor) -> Tensor:
        if self._keeps_kv:
            self.kv.append(qkv_TE[:, self._width :].contiguous())
        out = qkv_TE.new_empty(qkv_TE.shape[0], self._width)
        self._attention(layer, qkv_TE, out)
        return out

    def attend_cross(self, layer: int, q_TI: Tensor) -> Tensor:
        raise AssertionError("a stack that reads inputs has no cross attention")


def encode(weights: Weights, rows: Sequence[Row], dtype: torch.dtype) -> Encoded:
    """Run the first stack over the inputs of ``rows``; their adapters must be ready."""
    ordered = sorted(rows, key=_adapter)
    lengths = [row.num_input for row in ordered]
    stack = weights.reader
    device = weights.device
    ids = torch.tensor([i for row in ordered for i in row.request.input_ids], device=device)
    positions = torch.cat([torch.arange(n, device=device) for n in lengths])
    starts = [0, *torch.tensor(lengths).cumsum(0).tolist()]
    attention = PackedAttention(stack, list(zip(starts, lengths, strict=False)), dtype, device)
    is_decoding = any(row.request.kind == "generate" for row in ordered)
    context = _Context(stack, attention, keeps_kv=stack.record.is_causal and is_decoding)
    plan = plan_of(weights.layout.packed, ordered, lengths)
    hidden = stack.forward(ids, positions, plan, context)
    return Encoded(ordered, hidden, context.kv)


def plan_of(
    sites: Sequence[PackedSite], ordered: Sequence[Row], lengths: Sequence[int]
) -> RunPlan | None:
    """The plan of packed rows that are ordered by adapter; None when all are bare."""
    runs = []
    stops = list(accumulate(lengths))
    for adapter, group in groupby(range(len(ordered)), key=lambda i: _adapter(ordered[i])):
        numbers = list(group)
        if adapter:
            start = stops[numbers[0]] - lengths[numbers[0]]
            runs.append((start, stops[numbers[-1]], ordered[numbers[0]].prepared))
    return RunPlan(sites, runs) if runs else None


def _adapter(row: Row) -> str:
    return row.request.adapter or ""
