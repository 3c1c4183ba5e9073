"""The prefill step: inputs of new rows, packed without padding, through the stack that reads them.

Rows are ordered by adapter so that tokens of one adapter are contiguous, and its factors run as
one small product a site. Rows of a prompt lie in front of the tokens of each of its rows.

Shapes: ``T`` tokens of the step, ``D`` hidden width, ``W`` keys and values of a position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, groupby

import torch
from torch import Tensor

from serving.engine.offsets import Offsets
from serving.engine.row import Row
from serving.engine.transformer.attention import PackedAttention
from serving.engine.transformer.stack import Stack
from serving.engine.weights import Weights
from serving.primitives.layout import PackedSite
from serving.primitives.plan import RunPlan
from serving.upload import upload


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
        """Rows of the stream that each input takes."""
        return [row.num_read for row in self.rows]

    def generating(self) -> Encoded:
        """The rows that go on to decode, still in packed order."""
        is_kept = [row.request.kind == "generate" for row in self.rows]
        if all(is_kept):
            return self
        device = self.hidden.device
        kept = [row for row, wanted in zip(self.rows, is_kept, strict=True) if wanted]
        stops = accumulate(self.lengths)
        spans = [range(n - row.num_read, n) for row, n in zip(self.rows, stops, strict=True)]
        chosen = [i for span, wanted in zip(spans, is_kept, strict=True) if wanted for i in span]
        at = upload(chosen, device, torch.int64)
        return Encoded(
            kept, self.hidden.index_select(0, at), [kv.index_select(0, at) for kv in self.kv]
        )

    def last_hidden(self) -> Tensor:
        """The hidden state (R, D) of each row's last token."""
        ends = upload([stop - 1 for stop in accumulate(self.lengths)], self.hidden.device)
        return self.hidden.index_select(0, ends)


class ReadContext:
    """Self-attention within the packed rows; keys and values are kept where ``keeps_kv``."""

    def __init__(self, stack: Stack, attention: PackedAttention, *, keeps_kv: bool) -> None:
        self._attention = attention
        self._width = stack.query_width
        self._keeps_kv = keeps_kv
        self.kv: list[Tensor] = []

    def attend_self(self, layer: int, qkv_TE: Tensor) -> Tensor:
        """Attention within each row."""
        if self._keeps_kv:
            self.kv.append(qkv_TE[:, self._width :].contiguous())
        out = qkv_TE.new_empty(qkv_TE.shape[0], self._width)
        self._attention(layer, qkv_TE, out)
        return out

    def attend_cross(self, layer: int, q_TI: Tensor) -> Tensor:
        """Never asked of a stack that reads inputs."""
        raise AssertionError("a stack that reads inputs has no cross attention")


def encode(weights: Weights, rows: Sequence[Row], dtype: torch.dtype) -> Encoded:
    """Run the first stack over the inputs of ``rows``; their adapters must be ready."""
    ordered = sorted(rows, key=_adapter)
    stack, device = weights.reader, weights.device
    name = stack.record.name
    offsets, lengths = [row.place().reader for row in ordered], [row.num_read for row in ordered]
    ids = upload([token for row in ordered for token in row.inputs], device)
    attention = packed_attention(stack, ordered, lengths, dtype, device)
    is_decoding = any(row.request.kind == "generate" for row in ordered)
    context = ReadContext(stack, attention, keeps_kv=stack.record.is_causal and is_decoding)
    plan = plan_of(weights.layout.packed, ordered, lengths, prompts_of=name)
    indices = torch.cat([torch.arange(n, device=device) for n in lengths])
    table, rotary = positions_of(offsets, indices, lengths)
    hidden = stack.forward(ids, table, plan, context, rotary)
    return Encoded(ordered, hidden, context.kv)


def packed_attention(
    stack: Stack,
    rows: Sequence[Row],
    lengths: Sequence[int],
    dtype: torch.dtype,
    device: torch.device,
) -> PackedAttention:
    """Self-attention of packed rows of the stream, each behind its adapter's prefix."""
    name = f"{stack.record.name}.self"
    prefixes = [row.prepared.prefixes.get(name) for row in rows]
    starts = accumulate(lengths, initial=0)
    return PackedAttention(stack, list(zip(starts, lengths, prefixes)), dtype, device)


def positions_of(
    offsets: Sequence[Offsets], indices_T: Tensor, lengths: Sequence[int] | None = None
) -> tuple[Tensor, Tensor | None]:
    """Positions (T,) in learned tables and in rotary angles, None where these are the same.

    ``lengths`` says how many indices each row has, one if it is left out. What enters behind the
    table counts as position 0 there.
    """
    if not any(row.table or row.rotary for row in offsets):
        return indices_T, None
    device = indices_T.device
    found = [
        upload(values, device)
        for values in ([row.table for row in offsets], [row.rotary for row in offsets])
    ]
    if lengths is not None:
        counts, total = upload(lengths, device), indices_T.shape[0]
        found = [values.repeat_interleave(counts, output_size=total) for values in found]
    table, rotary = (indices_T + values for values in found)
    return table.clamp(min=0), rotary


def plan_of(
    sites: Sequence[PackedSite],
    ordered: Sequence[Row],
    lengths: Sequence[int],
    *,
    prompts_of: str | None = None,
    firsts: Sequence[int] | None = None,
) -> RunPlan | None:
    """The plan of packed rows that are ordered by adapter; None when all are bare.

    ``prompts_of`` names the stack that the rows enter, where they do; ``firsts`` the index that
    each begins at, where it is not 0.
    """
    runs, prompts = [], []
    stops = list(accumulate(lengths))
    for adapter, group in groupby(range(len(ordered)), key=lambda i: _adapter(ordered[i])):
        numbers = list(group)
        if not adapter:
            continue
        prepared, starts = ordered[numbers[0]].prepared, [stops[i] - lengths[i] for i in numbers]
        runs.append((starts[0], stops[numbers[-1]], prepared))
        prompt = None if prompts_of is None else prepared.prompts.get(prompts_of)
        if prompt is not None:
            for i, start in zip(numbers, starts):
                first = 0 if firsts is None else firsts[i]
                prompts.append((start, prompt, slice(first, first + lengths[i])))
    return RunPlan(sites, runs, prompts) if runs else None


def _adapter(row: Row) -> str:
    return row.request.adapter or ""
