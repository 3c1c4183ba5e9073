"""Prompts of a decoder that reads an encoder: run through it before its first token.

Shapes: ``T`` prompt rows of the step, ``h`` query heads, ``d`` head width, ``W`` keys and values of
a position.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from serving.engine.kv_store import KvStore
from serving.engine.prefill import ReadContext, packed_attention, plan_of, positions_of
from serving.engine.row import Row
from serving.engine.transformer.attention import PackedAttention, attend
from serving.engine.transformer.stack import Stack
from serving.engine.weights import Weights


def read_prompts(
    weights: Weights, rows: Sequence[Row], cross: KvStore, dtype: torch.dtype
) -> list[Tensor]:
    """Keys and values (T, W) of the prompts of ``rows``, which are ordered by adapter, by layer.

    ``cross`` must hold what the rows' decoders see of their encoders.
    """
    stack, device = weights.stacks["decoder"], weights.device
    offsets = [row.place().writer for row in rows]
    lengths = [own.num_prompt for own in offsets]
    attention = packed_attention(stack, rows, lengths, dtype, device)
    context = _PromptContext(stack, attention, rows, lengths, cross)
    plan = plan_of(weights, rows, lengths, prompts_of="decoder")
    indices = torch.cat([torch.arange(n, device=device) for n in lengths])
    table, rotary = positions_of(offsets, indices, lengths)
    stack.forward(torch.zeros_like(indices), table, plan, context, rotary)
    return context.kv


class _PromptContext(ReadContext):
    """Self-attention within each prompt, cross attention over what its row has read."""

    def __init__(
        self,
        stack: Stack,
        attention: PackedAttention,
        rows: Sequence[Row],
        lengths: Sequence[int],
        cross: KvStore,
    ) -> None:
        super().__init__(stack, attention, keeps_kv=True)
        self._record = stack.record
        self._spans = list(zip(rows, accumulate(lengths, initial=0), lengths))
        self._cross = cross

    def attend_cross(self, layer: int, q_TI: Tensor) -> Tensor:
        """Each prompt's queries over the keys of its own row."""
        h, d = self._record.num_heads, self._record.head_dim
        out = torch.empty_like(q_TI)
        for row, start, length in self._spans:
            q = q_TI[start : start + length].view(1, length, h, d).transpose(1, 2)
            key, value = self._cross.keys_of(row, layer, row.num_read)
            context = attend(self._record, q, key, value, None, is_causal=False)
            out[start : start + length] = context.transpose(1, 2).reshape(length, h * d)
        return out
