"""Inputs read in parts: a long prompt over several steps, while other rows go on decoding.

It serves decoders that read their own input. A part attends to the keys and values of the parts
before it, which wait outside of the decode batch until the input is whole. An input that begins
like one read before begins behind what is known of it.

Shapes: ``T`` tokens of a step's parts, ``n`` tokens of one part at positions ``start`` to ``stop``,
``D`` hidden width, ``W`` keys and values of a position, ``h`` query heads, ``k`` key-value heads.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate

import torch
from torch import Tensor

from serving.engine.finite import are_finite
from serving.engine.kv import KvShape
from serving.engine.kv_budget import KvBudget
from serving.engine.prefill import ends_of, plan_of, positions_of
from serving.engine.prefix_cache import PrefixCache
from serving.engine.prompt_scores import LogitsOf, score
from serving.engine.row import Row
from serving.engine.sampler import Choice
from serving.engine.transformer.attention import attend, front_mask, layer_masks
from serving.engine.transformer.sight import Sight
from serving.engine.transformer.stack import Stack
from serving.engine.weights import Weights
from serving.primitives.prefix import Front
from serving.upload import upload


@dataclass(slots=True, eq=False)
class Reading:
    """An input on its way in: ``kv`` (all positions, W) by layer, of which ``num_read`` are there.

    ``rows`` share it, each with the bytes that are kept for its place in the decode batch.
    ``hidden`` (1, D) is the last state of the latest part, ``is_finite`` whether it is, and all
    that is kept. ``scores`` are those of the prompt's tokens so far, where ``prompt_logprobs`` are
    asked.
    """

    rows: dict[Row, int]
    inputs: tuple[int, ...]
    kv: list[Tensor]
    num_read: int = 0
    hidden: Tensor | None = None
    is_finite: bool = True
    prompt_logprobs: int | None = None
    scores: list[Choice] = field(default_factory=list)

    @property
    def row(self) -> Row:
        """One of the rows; they have the same adapter."""
        return next(iter(self.rows))

    @property
    def num_left(self) -> int:
        """Tokens still to be read."""
        return len(self.inputs) - self.num_read

    @property
    def num_bytes(self) -> int:
        """Bytes of the keys and values."""
        return sum(layer.nbytes for layer in self.kv)


@dataclass(frozen=True, slots=True)
class _Part:
    """Tokens ``start`` to ``stop`` of an input, at ``first`` and after in the packed step."""

    reading: Reading
    start: int
    stop: int
    first: int


class PartReader:
    """Inputs that are being read, oldest first."""

    def __init__(
        self,
        weights: Weights,
        shape: KvShape,
        budget: KvBudget,
        known: PrefixCache,
        logits_of: LogitsOf,
    ) -> None:
        self._weights, self._shape, self._budget = weights, shape, budget
        self._known, self._logits_of = known, logits_of
        self._stack_name = weights.reader.record.name
        self._readings: dict[Row, Reading] = {}

    def __contains__(self, row: Row) -> bool:
        return row in self._readings

    @property
    def num_left(self) -> int:
        """Tokens of all inputs still to be read."""
        return sum(one.num_left for one in self._distinct())

    def bytes_for(self, row: Row) -> int:
        """Bytes that the row's input takes while it is read."""
        return 0 if self.find(row) else len(row.inputs) * self._shape.position_bytes

    def find(self, row: Row) -> Reading | None:
        """What is being read and serves ``row`` as well."""
        if row.reads_own:
            return None
        asked = row.request.sampling.prompt_logprobs
        for reading in self._distinct():
            other = reading.row
            is_same = other.origin == row.origin and not other.reads_own
            if is_same and asked in (None, reading.prompt_logprobs):
                return reading
        return None

    def begin(self, row: Row, reserved_bytes: int) -> int:
        """Take a row whose adapter is ready; it must stay ready until the input is whole.

        Returns how many tokens of its input need not be read for it.
        """
        self._budget.hold(reserved_bytes)
        reading = self.find(row)
        if reading is not None:
            reading.rows[row] = reserved_bytes
            self._readings[row] = reading
            return len(reading.inputs)
        inputs, shape = row.inputs, self._shape
        self._budget.hold(len(inputs) * shape.position_bytes)
        kv = [
            torch.zeros(len(inputs), shape.width, dtype=shape.dtype, device=shape.device)
            for _ in range(shape.num_layers)
        ]
        reading = Reading({row: reserved_bytes}, inputs, kv)
        self._readings[row] = reading
        if row.scores_input:
            reading.prompt_logprobs = row.request.sampling.prompt_logprobs
        else:
            reading.num_read = self._known.read(row.request.adapter, inputs, kv)
        return reading.num_read

    def settle(self, reading: Reading) -> None:
        """Give the bytes reserved for the rows' places free: they take them now."""
        self._budget.let_go(sum(reading.rows.values()))
        reading.rows = dict.fromkeys(reading.rows, 0)

    def end(self, row: Row) -> None:
        """Forget a row; the memory of its input is free with the last one."""
        reading = self._readings.pop(row)
        self._budget.let_go(reading.rows.pop(row))
        if not reading.rows:
            self._budget.let_go(reading.num_bytes)

    def _distinct(self) -> Iterable[Reading]:
        return dict.fromkeys(self._readings.values())

    def step(self, max_tokens: int) -> list[Reading]:
        """Read on, ``max_tokens`` at most; returns the inputs that a part was read of."""
        parts = list(self._parts(max_tokens))
        if not parts:
            return []
        weights, device = self._weights, self._shape.device
        lengths = [part.stop - part.start for part in parts]
        rows = [part.reading.row for part in parts]
        ids = [token for part in parts for token in part.reading.inputs[part.start : part.stop]]
        indices = [torch.arange(part.start, part.stop, device=device) for part in parts]
        offsets = [row.place().reader for row in rows]
        table, rotary = positions_of(offsets, torch.cat(indices), lengths)
        firsts = [part.start for part in parts]
        plan = plan_of(weights, rows, lengths, prompts_of=self._stack_name, firsts=firsts)
        context = _Context(weights.reader, parts, self._shape.dtype)
        wanted = None
        if all(part.reading.prompt_logprobs is None for part in parts):
            wanted = ends_of(weights, rows, lengths)
        hidden = weights.reader.forward(
            upload(ids, device), table, plan, context, rotary, wanted=wanted
        )
        spans = torch.split(hidden, lengths if wanted is None else 1)
        kept = [part.reading.kv[-1][part.start : part.stop] for part in parts]
        for part, own, is_finite in zip(parts, spans, are_finite(spans, kept), strict=True):
            part.reading.num_read = part.stop
            part.reading.hidden = own[-1:]
            part.reading.is_finite = is_finite
            count = part.reading.prompt_logprobs
            if count is not None:
                found = score(part.reading.row, count, own, part.start, self._logits_of)
                part.reading.is_finite &= found is not None
                part.reading.scores += found or []
        return [part.reading for part in parts]

    def _parts(self, max_tokens: int) -> Iterable[_Part]:
        chosen: list[tuple[Reading, int]] = []
        for reading in self._distinct():
            length = min(reading.num_left, max_tokens)
            if length == 0:
                break
            chosen.append((reading, length))
            max_tokens -= length
        chosen.sort(key=lambda one: one[0].row.request.adapter or "")
        starts = accumulate((length for _, length in chosen), initial=0)
        for (reading, length), first in zip(chosen, starts, strict=False):
            yield _Part(reading, reading.num_read, reading.num_read + length, first)


class _Context:
    """Self-attention of parts over their own input so far; keys and values are kept with it."""

    def __init__(self, stack: Stack, parts: Sequence[_Part], dtype: torch.dtype) -> None:
        self._stack, self._parts = stack, parts
        name = f"{stack.record.name}.self"
        self._prefixes = [part.reading.row.prepared.prefixes.get(name) for part in parts]
        self._masks = [
            layer_masks(stack.sights, prefix, partial(self._mask, part, dtype))
            for part, prefix in zip(parts, self._prefixes, strict=True)
        ]

    def _mask(self, part: _Part, dtype: torch.dtype, sight: Sight, front: Front) -> Tensor | None:
        is_plain = sight.is_plain(part.stop) and self._stack.record.softcap is None
        if is_plain and part.start == 0 and front.num_rows == 0:
            return None
        indices = torch.arange(part.start, part.stop, device=part.reading.kv[0].device)
        return front_mask(sight, indices, part.stop, front, dtype)

    def attend_self(self, layer: int, qkv_TE: Tensor) -> Tensor:
        record = self._stack.record
        h, k, d = record.num_heads, record.kv_heads, record.head_dim
        width = self._stack.query_width
        out = qkv_TE.new_empty(qkv_TE.shape[0], width)
        for part, prefix, masks in zip(self._parts, self._prefixes, self._masks, strict=True):
            n = part.stop - part.start
            own = qkv_TE[part.first : part.first + n]
            kv_CW = part.reading.kv[layer]
            kv_CW[part.start : part.stop] = own[:, width:]
            q = own[:, :width].view(1, n, h, d).transpose(1, 2)
            seen_CW, mask = kv_CW[: part.stop], masks[layer]
            if prefix is not None and layer in prefix.rows:
                seen_CW = torch.cat([prefix.rows[layer], seen_CW])
            kv = seen_CW.view(1, -1, 2 * k, d).transpose(1, 2)
            context = attend(record, q, kv[:, :k], kv[:, k:], mask, is_causal=mask is None)
            out[part.first : part.first + n] = context.transpose(1, 2).reshape(n, width)
        return out

    def attend_cross(self, layer: int, q_TI: Tensor) -> Tensor:
        raise AssertionError("a decoder that reads its own input has no cross attention")
