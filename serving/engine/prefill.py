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
from serving.engine.origin import Origin
from serving.engine.row import Row
from serving.engine.transformer.attention import PackedAttention
from serving.engine.transformer.stack import Stack, Wanted
from serving.engine.weights import Weights
from serving.primitives.plan import RunPlan
from serving.upload import upload


@dataclass(frozen=True, slots=True)
class Encoded:
    """Inputs in packed order with their last hidden states (T, D); T is the sum of ``lengths``.

    Where ``has_ends`` only, ``hidden`` (n, D) has those of each input's last token.
    ``readers`` has one row an input, ``rows`` all rows, of which those with the same input share
    it: ``sources`` says for each which one it is. ``kv`` has the keys and values (T, W) of every
    layer where the stack goes on to decode.
    """

    readers: list[Row]
    rows: list[Row]
    sources: list[int]
    hidden: Tensor
    kv: list[Tensor]
    has_ends: bool = False

    @property
    def lengths(self) -> list[int]:
        """Rows of the stream that each input takes."""
        return [row.num_read for row in self.readers]

    @property
    def starts(self) -> list[int]:
        """Where the input of each of ``rows`` begins."""
        starts = list(accumulate(self.lengths, initial=0))
        return [starts[source] for source in self.sources]

    def generating(self) -> Encoded:
        """The rows that go on to decode, still in packed order, with their inputs."""
        kept = [i for i, row in enumerate(self.rows) if row.request.kind == "generate"]
        rows, sources = [self.rows[i] for i in kept], [self.sources[i] for i in kept]
        used = sorted(set(sources))
        if len(used) == len(self.readers):
            return Encoded(self.readers, rows, sources, self.hidden, self.kv, self.has_ends)
        if not kept:
            return Encoded([], [], [], self.hidden[:0], [])
        device = self.hidden.device
        stops = list(accumulate(self.lengths, initial=0))
        chosen = [i for number in used for i in range(stops[number], stops[number + 1])]
        at = upload(chosen, device, torch.int64)
        return Encoded(
            [self.readers[i] for i in used],
            rows,
            [used.index(source) for source in sources],
            self.hidden.index_select(0, at),
            [kv.index_select(0, at) for kv in self.kv],
        )

    def last_hidden(self) -> Tensor:
        """The hidden state (R, D) of each row's last token."""
        ends = self.sources
        if not self.has_ends:
            ends = [s + row.num_read - 1 for s, row in zip(self.starts, self.rows, strict=True)]
        return self.hidden.index_select(0, upload(ends, self.hidden.device))


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


class Pass:
    """Inputs on their way through the stack that reads them, some layers at a time.

    The adapters of ``rows`` must be ready, and stay so until it is over. Rows with the same input
    share it, and more of them may come until then.
    """

    def __init__(self, weights: Weights, rows: Sequence[Row], dtype: torch.dtype) -> None:
        self._rows = sorted(rows, key=_adapter)
        self._readers: dict[Origin, Row] = {}
        for row in self._rows:
            self._readers.setdefault(row.origin, row)
        ordered = list(self._readers.values())
        self._stack = stack = weights.reader
        device, name = weights.device, stack.record.name
        lengths = [row.num_read for row in ordered]
        ids = upload([token for row in ordered for token in row.inputs], device)
        attention = packed_attention(stack, ordered, lengths, dtype, device)
        is_decoding = any(row.request.kind == "generate" for row in rows)
        self._plan = plan_of(weights, ordered, lengths, prompts_of=name)
        self._wanted = None
        if stack.record.is_causal and all(map(_needs_end, rows)):
            self._wanted = ends_of(weights, ordered, lengths)
        keeps_kv = stack.record.is_causal and is_decoding
        self._context = ReadContext(stack, attention, keeps_kv=keeps_kv)
        indices = torch.cat([torch.arange(n, device=device) for n in lengths])
        table, rotary = positions_of([row.place().reader for row in ordered], indices, lengths)
        self._states, self._angles = stack.enter(ids, table, self._plan, rotary)
        self._num_done = 0

    @property
    def rows(self) -> Sequence[Row]:
        """Every row that is served."""
        return self._rows

    @property
    def num_tokens(self) -> int:
        """T."""
        return self._states.shape[0]

    @property
    def num_left(self) -> int:
        """Layers still to be run."""
        return len(self._stack.layers) - self._num_done

    def __contains__(self, origin: Origin) -> bool:
        return origin in self._readers

    def add(self, row: Row) -> None:
        """Serve a row whose input is among those that are read."""
        assert row.origin in self._readers
        self._rows = sorted([*self._rows, row], key=_adapter)

    def remove(self, row: Row) -> None:
        """Serve a row no longer; another one with its input, if there is one, stands for it."""
        self._rows.remove(row)
        same = (one for one in self._rows if one.origin == row.origin)
        self._readers[row.origin] = next(same, row)

    def run(self, num_layers: int) -> None:
        """Run that many layers, of those that are left."""
        stop = self._num_done + min(num_layers, self.num_left)
        self._states = self._stack.run(
            self._states,
            self._angles,
            self._plan,
            self._context,
            range(self._num_done, stop),
            self._wanted,
        )
        self._num_done = stop

    def result(self) -> Encoded:
        """What was read, once no layer is left."""
        assert not self.num_left
        readers, rows = list(self._readers.values()), list(self._rows)
        place = {origin: i for i, origin in enumerate(self._readers)}
        sources = [place[row.origin] for row in rows]
        has_ends = self._wanted is not None
        return Encoded(readers, rows, sources, self._states, self._context.kv, has_ends)


def encode(weights: Weights, rows: Sequence[Row], dtype: torch.dtype) -> Encoded:
    """Run the first stack over the inputs of ``rows``; their adapters must be ready."""
    whole = Pass(weights, rows, dtype)
    whole.run(whole.num_left)
    return whole.result()


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
    weights: Weights,
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
    if not runs:
        return None
    return RunPlan(weights.layout.packed, runs, prompts, weights.backend.runs)


def ends_of(weights: Weights, ordered: Sequence[Row], lengths: Sequence[int]) -> Wanted:
    """The last token of each packed row that is ordered by adapter."""
    index = upload([stop - 1 for stop in accumulate(lengths)], weights.device, torch.int64)
    return Wanted(index, plan_of(weights, ordered, [1] * len(ordered)))


def _needs_end(row: Row) -> bool:
    """Whether a decoder's row needs no state of its input but the last one."""
    return row.request.kind == "generate" and not row.scores_input


def _adapter(row: Row) -> str:
    return row.request.adapter or ""
