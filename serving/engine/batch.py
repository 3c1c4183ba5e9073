"""The decode batch: running rows, their slabs and their plan.

Row ``i`` of every tensor is ``rows[i]``. A row that leaves is replaced by the last one at once.

Shapes: ``R`` rows, ``C`` cached positions of the longest row, ``D`` hidden width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from serving.engine.config import EngineConfig
from serving.engine.kv import Slab, round_up
from serving.engine.plan import DecodePlan
from serving.engine.prefill import Encoded, plan_of
from serving.engine.row import Row
from serving.engine.transformer.attention import slab_attention
from serving.engine.weights import Weights

_LENGTH_BUCKET = 16
_PREFILL_ROLES = ("cross.k", "cross.v")


class DecodeBatch:
    """Rows that generate; one call of :meth:`step` decodes one token of each."""

    def __init__(self, weights: Weights, config: EngineConfig) -> None:
        self._weights = weights
        self._stack = weights.stacks["decoder"]
        self._bias = weights.biases["decoder"]
        record = self._stack.record
        dtype, device = config.torch_dtype, weights.device
        shape = (record.num_layers, record.num_heads, record.head_dim)
        self._self = Slab(*shape, dtype, device)
        self._cross = Slab(*shape, dtype, device)
        active = frozenset(
            p.index
            for p in weights.layout.packed
            if p.members[0].stack == "decoder" and p.members[0].role not in _PREFILL_ROLES
        )
        self._plan = DecodePlan(
            weights.layout.packed,
            active,
            dtype,
            device,
            config.mixture_form,
            config.balance_flops_per_byte,
        )
        self._dtype = dtype
        self.rows: list[Row] = []
        self._cross_mask: Tensor | None = None
        self._cross_length = 0

    @property
    def table_bytes(self) -> int:
        """Bytes of the plan's row-ordered factors."""
        return self._plan.num_bytes

    @property
    def kv_bytes(self) -> int:
        """Bytes of the key/value slabs."""
        return self._self.num_bytes + self._cross.num_bytes

    def join(self, encoded: Encoded) -> None:
        """Add encoded rows: cross keys and values are computed once, factors are copied in."""
        first = len(self.rows)
        self.rows.extend(encoded.rows)
        self._cross.reserve(len(self.rows), max(encoded.lengths))
        self._self.reserve(len(self.rows), 1)
        width = self._cross.num_positions
        device = self._weights.device
        places = torch.cat(
            [
                torch.arange(n, device=device) + (first + i) * width
                for i, n in enumerate(encoded.lengths)
            ]
        )
        plan = plan_of(self._weights.layout.packed, encoded.rows)
        for number, layer in enumerate(self._stack.layers):
            assert layer.cross_kv is not None
            kv = layer.cross_kv(encoded.hidden, plan)
            self._cross.write(number, places, kv)
        for row in encoded.rows:
            row.is_routed = row.prepared.mixture is not None
        num_routed = sum(row.is_routed for row in self.rows)
        for offset, row in enumerate(encoded.rows):
            self._plan.join(first + offset, row.prepared, num_routed)
        self._cross_mask = None

    def fork(self, row: Row, copies: Sequence[Row]) -> None:
        """Add copies of a row that has just joined; its adapter must still be leased."""
        source, first = self.rows.index(row), len(self.rows)
        targets = list(range(first, first + len(copies)))
        self.rows.extend(copies)
        for slab, length in ((self._self, row.position + 1), (self._cross, row.num_input)):
            slab.reserve(len(self.rows), length)
            slab.copy([source] * len(copies), targets, length)
        num_routed = sum(one.is_routed for one in self.rows)
        for target in targets:
            self._plan.join(target, row.prepared, num_routed)
        self._cross_mask = None

    def reorder(self, rows: Sequence[Row], parents: Sequence[int]) -> None:
        """Each of ``rows``, beams of one request, goes on from what ``rows[parent]`` has read."""
        places = [self.rows.index(row) for row in rows]
        moves = [(places[p], place) for place, p in zip(places, parents) if places[p] != place]
        if moves:
            sources, targets = (list(side) for side in zip(*moves))
            self._self.copy(sources, targets, rows[0].position)

    def leave(self, row: Row, *, is_poisoned: bool = False) -> None:
        """Remove a row; ``is_poisoned`` wipes values that are not finite from its slabs."""
        index, last = self.rows.index(row), len(self.rows) - 1
        if is_poisoned:
            self._self.wipe(index)
            self._cross.wipe(index)
        if index != last:
            moved = self.rows[last]
            self._self.move(last, index, moved.position + 1)
            self._cross.move(last, index, moved.num_input)
            self.rows[index] = moved
        self.rows.pop()
        self._plan.leave(index, last)
        self._cross_mask = None
        if not self.rows:
            self._self.release()
            self._cross.release()

    def step(self) -> Tensor:
        """Decode one token of every row: logits (R, vocab), contiguous."""
        R = len(self.rows)
        device = self._weights.device
        positions = torch.tensor([row.position for row in self.rows], device=device)
        ids = torch.tensor([row.token for row in self.rows], device=device)
        longest = 1 + max(row.position for row in self.rows)
        self._self.reserve(R, longest)
        length = min(round_up(longest, _LENGTH_BUCKET), self._self.num_positions)
        places = torch.arange(R, device=device) * self._self.num_positions + positions
        context = _Context(
            self._stack.record.attention_scale,
            self._self,
            self._cross,
            places,
            self._self_mask(positions, length),
            self._mask_of_inputs(),
            (R, length, self._cross_length),
        )
        plan = None if self._plan.is_empty else self._plan
        hidden_RD = self._stack.forward(ids, positions, plan, context)
        assert self._weights.lm_head is not None
        return torch.mm(hidden_RD, self._weights.lm_head)

    def _self_mask(self, positions_R: Tensor, length: int) -> Tensor:
        keys_C = torch.arange(length, device=positions_R.device)
        is_future = keys_C > positions_R[:, None]
        if self._bias is None:
            mask_RC = torch.zeros(is_future.shape, dtype=self._dtype, device=is_future.device)
            return mask_RC.masked_fill_(is_future, float("-inf"))[:, None, None, :]
        bias_RCh = self._bias.between(positions_R[:, None], keys_C, length)
        mask_RhC = bias_RCh.permute(0, 2, 1).masked_fill(is_future[:, None], float("-inf"))
        return mask_RhC.contiguous().unsqueeze(2)

    def _mask_of_inputs(self) -> Tensor:
        if self._cross_mask is None:
            device = self._weights.device
            lengths_R = torch.tensor([row.num_input for row in self.rows], device=device)
            longest = int(lengths_R.max())
            self._cross_length = min(round_up(longest, _LENGTH_BUCKET), self._cross.num_positions)
            keys_C = torch.arange(self._cross_length, device=device)
            mask_RC = torch.zeros(
                len(self.rows), self._cross_length, dtype=self._dtype, device=device
            )
            mask_RC.masked_fill_(keys_C >= lengths_R[:, None], float("-inf"))
            self._cross_mask = mask_RC[:, None, None, :]
        return self._cross_mask


class _Context:
    """Attention of one decode step over the slabs; masks are shared by all layers."""

    def __init__(
        self,
        scale: float,
        self_slab: Slab,
        cross_slab: Slab,
        places_R: Tensor,
        self_mask: Tensor,
        cross_mask: Tensor,
        shape: tuple[int, int, int],
    ) -> None:
        self._scale = scale
        self._self, self._cross = self_slab, cross_slab
        self._places = places_R
        self._self_mask, self._cross_mask = self_mask, cross_mask
        self._num_rows, self._length, self._cross_length = shape

    def attend_self(self, layer: int, qkv_T3I: Tensor) -> Tensor:
        width = self._self.width
        self._self.write(layer, self._places, qkv_T3I[:, -width:])
        k, v = self._self.views(layer, self._num_rows, self._length)
        return slab_attention(qkv_T3I[:, :-width], k, v, self._self_mask, self._scale)

    def attend_cross(self, layer: int, q_TI: Tensor) -> Tensor:
        k, v = self._cross.views(layer, self._num_rows, self._cross_length)
        return slab_attention(q_TI, k, v, self._cross_mask, self._scale)
