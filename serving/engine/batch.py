"""The decode batch: running rows, their keys and values, and their plan.

Row ``i`` of every tensor is ``rows[i]``. A row that leaves is replaced by the last one at once.

Shapes: ``R`` rows, ``D`` hidden width, ``I`` query width, ``W`` keys and values of a position.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
from torch import Tensor

from serving.engine.config import EngineConfig
from serving.engine.decode_context import DecodeContext
from serving.engine.decoder_prompts import read_prompts
from serving.engine.graphs import static_steps
from serving.engine.kv import KvShape
from serving.engine.kv_budget import KvBudget
from serving.engine.kv_store import Group, KvStore, Run
from serving.engine.parts import Reading
from serving.engine.plan import DecodePlan
from serving.engine.prefill import Encoded, plan_of, positions_of
from serving.engine.row import Row
from serving.engine.transformer.sight import length_mask
from serving.engine.weights import Weights
from serving.upload import upload

_PREFILL_ROLES = ("cross.k", "cross.v")


class DecodeBatch:
    """Rows that generate; one call of :meth:`step` decodes one token of each."""

    def __init__(self, weights: Weights, config: EngineConfig, budget: KvBudget) -> None:
        assert weights.output is not None
        self._weights = weights
        self._output = weights.output
        self._stack = weights.stacks["decoder"]
        record = self._stack.record
        self._dtype, self._device = config.torch_dtype, weights.device
        self.shape = KvShape(
            record.num_layers,
            record.kv_heads,
            record.head_dim,
            self._dtype,
            self._device,
            transposes_keys=self._device.type == "cpu" and weights.backend.name == "torch",
        )
        self._self = KvStore(self.shape, budget, lambda row: row.place().writer)
        self._cross = None
        if record.has_cross:
            self._cross = KvStore(self.shape, budget, lambda row: row.place().cross)
        active = frozenset(
            p.index
            for p in weights.layout.packed
            if p.members[0].stack == "decoder" and p.members[0].role not in _PREFILL_ROLES
        )
        self._plan = DecodePlan(
            weights.layout.packed,
            active,
            self._dtype,
            self._device,
            config.mixture_form,
            config.balance_flops_per_byte,
            weights.backend,
            config.max_rows,
        )
        self._static = static_steps(weights, config, self._self, self._cross)
        self.rows: list[Row] = []

    @property
    def table_bytes(self) -> int:
        """Bytes of the plan's row-ordered factors."""
        return self._plan.num_bytes

    def entry_bytes(self, row: Row) -> int:
        """Bytes of keys and values that ``row`` takes when it joins, all its beams together."""
        return self._bytes_for(row, self._first_positions(row))

    def largest_bytes(self, row: Row) -> int:
        """Bytes of keys and values that ``row`` takes when it is as long as it may become.

        A decoder that has to read it all again holds its input beside its place.
        """
        own = row.num_read if self._cross is None else 1 + row.place().writer.num_prompt
        longest = own + row.request.sampling.max_tokens
        again = longest * self.shape.position_bytes if self._cross is None else 0
        return self._bytes_for(row, longest) + again

    def growth_bytes(self) -> int:
        """Bytes of the places that rows move to before they can take the next step."""
        return sum(self._self.growth_bytes(row, row.position + 1) for row in self.rows)

    def _bytes_for(self, row: Row, num_positions: int) -> int:
        cross = 0 if self._cross is None else self._cross.bytes_for(row, row.num_read)
        return row.width * (cross + self._self.bytes_for(row, num_positions))

    def _first_positions(self, row: Row) -> int:
        """Positions of the first place of a row; a search never moves to another."""
        if self._cross is None:
            own = len(row.inputs)
        else:
            own = row.place().writer.num_prompt + len(row.tokens)
        return own + (row.request.sampling.max_tokens if row.width > 1 else 1)

    def join(self, encoded: Encoded) -> None:
        """Add rows whose input was read, before their first token; factors are copied in.

        With cross attention its keys and values are computed here, once; without it those of the
        input itself are stored.
        """
        first = self._place(encoded.rows)
        runs = [
            Run(row, start, row.num_read)
            for row, start in zip(encoded.rows, encoded.starts, strict=True)
        ]
        if self._cross is None:
            self._self.write(runs, encoded.kv)
        else:
            for row in encoded.rows:
                self._cross.add(row, row.num_read)
                _put_front(self._cross, row, "decoder.cross")
            plan = plan_of(self._weights, encoded.readers, encoded.lengths)
            projections = [layer.cross_kv for layer in self._stack.layers]
            self._cross.write(
                runs, [kv(encoded.hidden, plan) for kv in projections if kv is not None]
            )
            self._read_prompts(encoded.rows)
        self._enrol(first)

    def join_beside(self, row: Row, mate: Row) -> None:
        """Add a row that reads through an encoder the same as ``mate`` of the batch has read."""
        assert self._cross is not None
        first = self._place([row])
        self._cross.add(row, row.num_read)
        self._cross.copy(mate, row, row.num_read)
        self._read_prompts([row])
        self._enrol(first)

    def _place(self, rows: Sequence[Row]) -> int:
        """Add rows and their first places; returns the number of the first one."""
        first = len(self.rows)
        self.rows.extend(rows)
        for row in rows:
            self._self.add(row, self._first_positions(row))
            _put_front(self._self, row, "decoder.self")
        return first

    def join_read(self, readings: Sequence[Reading]) -> None:
        """Add rows whose input was read in parts, as :meth:`join` does."""
        first = self._place([row for reading in readings for row in reading.rows])
        for reading in readings:
            runs = [Run(row, 0, len(reading.inputs)) for row in reading.rows]
            self._self.write(runs, reading.kv)
        self._enrol(first)

    def _read_prompts(self, joined: Sequence[Row]) -> None:
        """Run the decoder's own prompts, where rows have any, through it."""
        rows = [row for row in joined if row.place().writer.num_prompt]
        if not rows:
            return
        assert self._cross is not None
        kv = read_prompts(self._weights, rows, self._cross, self._dtype)
        lengths = [row.place().writer.num_prompt for row in rows]
        starts = accumulate(lengths, initial=0)
        self._self.write([Run(*one) for one in zip(rows, starts, lengths)], kv)

    def _enrol(self, first: int) -> None:
        """Copy the adapters of the rows from ``first`` on into the plan."""
        entered = self.rows[first:]
        for row in entered:
            row.bank = None if row.entry is None else row.entry.bank_digest
        num_routed = sum(row.bank is not None for row in self.rows)
        for offset, row in enumerate(entered):
            self._plan.join(first + offset, row.prepared, num_routed)

    def fork(self, row: Row, copies: Sequence[Row]) -> None:
        """Add copies of a row that has just joined; its adapter must still be leased."""
        first = len(self.rows)
        self.rows.extend(copies)
        self._self.fork(row, copies, row.position + 1)
        if self._cross is not None:
            self._cross.fork(row, copies, row.num_read)
        num_routed = sum(one.bank is not None for one in self.rows)
        for target in range(first, len(self.rows)):
            self._plan.join(target, row.prepared, num_routed)

    def reorder(self, rows: Sequence[Row], parents: Sequence[int]) -> None:
        """Each of ``rows``, beams of one request, goes on from what ``rows[parent]`` has read."""
        self._self.reorder(rows, parents, rows[0].position)

    def leave(self, row: Row, *, is_poisoned: bool = False) -> None:
        """Remove a row; ``is_poisoned`` wipes values that are not finite from its slabs."""
        index, last = self.rows.index(row), len(self.rows) - 1
        self._self.remove(row, _num_cached, is_poisoned=is_poisoned)
        if self._cross is not None:
            self._cross.remove(row, _num_read, is_poisoned=is_poisoned)
        self.rows[index] = self.rows[last]
        self.rows.pop()
        self._plan.leave(index, last)

    def step(self) -> Tensor:
        """Decode one token of every row: logits (R, vocab), contiguous."""
        for row in self.rows:
            self._self.fit(row, row.position + 1, _num_cached)
        plan = None if self._plan.is_empty else self._plan
        if self._static is not None:
            logits = self._static.logits(self.rows, plan)
            if logits is not None:
                return logits
        indices = upload([row.position for row in self.rows], self._device)
        offsets = [row.place().writer for row in self.rows]
        table, rotary = positions_of(offsets, indices)
        ids = upload([row.token for row in self.rows], self._device)
        context = DecodeContext(self._stack, self._self_groups(indices), self._cross_groups())
        return self.logits(self._stack.forward(ids, table, plan, context, rotary))

    def logits(self, hidden_RD: Tensor) -> Tensor:
        """Logits (R, vocab) of last hidden states, contiguous."""
        return self._output(hidden_RD)

    def _self_groups(self, indices_R: Tensor) -> list[Group]:
        groups = self._self.groups(self.rows)
        sights = self._stack.sights
        for group in groups:
            slab, fronts = group.slab, group.fronts
            columns = indices = group.pick(indices_R)
            if fronts is not None:
                columns = indices + fronts.num_front
            group.read(1 + max(row.position + row.place().writer.num_front for row in slab.rows))
            starts = torch.arange(group.num_rows, device=self._device) * slab.num_positions
            group.places = starts + columns
            if fronts is not None:
                group.masks = fronts.masks(sights, indices, group.length, self._dtype)
                continue
            keys = torch.arange(group.length, device=self._device)
            made = {
                sight: sight.mask(indices.unsqueeze(1), keys, group.length, self._dtype)
                for sight in dict.fromkeys(sights)
            }
            group.masks = [made[sight] for sight in sights]
        return groups

    def _cross_groups(self) -> list[Group]:
        if self._cross is None:
            return []
        groups = self._cross.groups(self.rows)
        for group in groups:
            if group.length:
                continue
            rows = group.slab.rows
            group.read(max(row.num_read + row.place().cross.num_front for row in rows))
            lengths = upload([row.num_read for row in rows], self._device)
            if group.fronts is not None:
                group.masks = group.fronts.cross_masks(lengths, group.length, self._dtype)
                continue
            mask = length_mask(lengths, group.length, self._dtype)
            group.masks = [mask] * self._stack.record.num_layers
        return groups


def _put_front(store: KvStore, row: Row, attention: str) -> None:
    prefix = row.prepared.prefixes.get(attention)
    if prefix is not None:
        store.put_front(row, prefix)


def _num_cached(row: Row) -> int:
    """Positions of a row that hold keys and values."""
    return row.position + 1


def _num_read(row: Row) -> int:
    return row.num_read
