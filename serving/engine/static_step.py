"""A decode step over fixed memory: the same kernels over the same buffers whatever rows are there.

What changes from step to step lies in one buffer of numbers: each row's token, position, and where
its keys and values are. Rows are padded to a bucket by rows that have no keys and write nothing. So
a step can be recorded once and played back, which is what a CUDA graph is for.

Shapes: ``R`` rows, ``B`` rows of the bucket, ``L`` layers, ``I`` query width, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from serving.engine.config import EngineConfig
from serving.engine.kernels.attention import attend_rows, store_rows
from serving.engine.kv_store import Group, KvStore
from serving.engine.plan import DecodePlan
from serving.engine.row import Row
from serving.engine.transformer.stack import Stack
from serving.engine.weights import Weights
from serving.upload import can_pin, upload

_PLACE_FIELDS = 3
_MAX_SLABS = 64


class Recorder(Protocol):
    """Runs a step that does the same work over the same memory wherever keys are equal."""

    def run(self, key: Hashable, step: Callable[[], Tensor]) -> Tensor | None:
        """What ``step`` gives; None where it cannot be run this way."""


class Unrecorded:
    """Runs every step as it is."""

    def run(self, key: Hashable, step: Callable[[], Tensor]) -> Tensor | None:
        """What ``step`` gives."""
        return step()


def buckets_of(max_rows: int) -> list[int]:
    """Numbers of rows that a step is made for: powers of two, and ``max_rows``."""
    return [*(1 << i for i in range((max_rows - 1).bit_length())), max_rows]


class _Places:
    """Where the rows of a store lie: addresses by slab and layer, and each row's slab and place."""

    def __init__(self, store: KvStore, num_layers: int, width: int, device: torch.device) -> None:
        self._store = store
        self._num_layers, self._width = num_layers, width
        self.bases = torch.zeros(_MAX_SLABS * num_layers, dtype=torch.int64, device=device)
        self._addresses: list[int] = []
        self._groups: Sequence[Group] = ()
        self._places: dict[Row, tuple[int, int]] = {}

    def find(self, rows: Sequence[Row]) -> tuple[list[int], list[int]]:
        """Where each row's slab begins among the bases, and its first element in a layer."""
        groups = self._store.groups(rows)
        if groups is not self._groups:
            self._groups = groups
            self._places = {
                row: (number * self._num_layers, i * group.slab.num_positions * self._width)
                for number, group in enumerate(groups)
                for i, row in enumerate(group.slab.rows)
            }
        addresses = [address for group in groups for address in group.slab.addresses]
        if addresses != self._addresses:
            self._addresses = addresses
            self.bases[: len(addresses)].copy_(upload(addresses, self.bases.device))
        found = [self._places[row] for row in rows]
        return [base for base, _ in found], [first for _, first in found]


class _Context:
    """Attention by address; ``own`` and ``cross`` (3, B) are the places of a bucket's rows."""

    def __init__(self, step: StaticStep, own: Tensor, cross: Tensor | None) -> None:
        self._step, self._own, self._cross = step, own, cross
        record = step.stack.record
        self._heads = record.num_heads, record.kv_heads, record.head_dim
        self._width = step.stack.query_width

    def attend_self(self, layer: int, qkv_BE: Tensor) -> Tensor:
        """Keep each row's key and value and attend over all that it has."""
        step, record = self._step, self._step.stack.record
        bases, places, sight = step.own.bases, self._own, step.stack.sights[layer]
        q, kv = qkv_BE[:, : self._width], qkv_BE[:, self._width :]
        store_rows(kv, bases, places, layer)
        out = q.new_empty(q.shape)
        attend_rows(
            q,
            out,
            bases,
            places,
            layer,
            self._heads,
            record.attention_scale,
            softcap=record.softcap,
            window=sight.window,
            bias=None if sight.bias is None else (sight.bias.table, sight.bias.reach),
        )
        return out

    def attend_cross(self, layer: int, q_BI: Tensor) -> Tensor:
        """Attend over what each row has read."""
        step = self._step
        assert step.cross is not None
        assert self._cross is not None
        out = torch.empty_like(q_BI)
        record = step.stack.record
        attend_rows(
            q_BI,
            out,
            step.cross.bases,
            self._cross,
            layer,
            self._heads,
            record.attention_scale,
            softcap=record.softcap,
        )
        return out


class StaticStep:
    """Decode steps over fixed memory, for batches that it holds; ``recorder`` runs them."""

    def __init__(
        self,
        weights: Weights,
        config: EngineConfig,
        own: KvStore,
        cross: KvStore | None,
        recorder: Recorder,
    ) -> None:
        assert weights.output is not None
        self.stack: Stack = weights.stacks["decoder"]
        self._output, self._device = weights.output, weights.device
        self._recorder = recorder
        record = self.stack.record
        self._buckets = buckets_of(config.max_rows)
        width = 2 * record.kv_heads * record.head_dim
        self.own = _Places(own, record.num_layers, width, self._device)
        self.cross = None
        if cross is not None:
            self.cross = _Places(cross, record.num_layers, width, self._device)
        self._num_fields = 2 + _PLACE_FIELDS * (1 if cross is None else 2)
        size = self._num_fields * config.max_rows
        self._inputs = torch.zeros(size, dtype=torch.int64, device=self._device)
        self._biases = list(dict.fromkeys(s.bias for s in self.stack.sights if s.bias is not None))

    @torch.inference_mode()
    def record(self) -> None:
        """Record the steps of bare rows, those of the most rows first."""
        for bucket in reversed(self._buckets):
            for _ in range(2):
                self._run([], None, None, bucket)

    def logits(self, rows: Sequence[Row], plan: DecodePlan | None) -> Tensor | None:
        """Logits (R, V), to be read before the next step; None where it cannot hold the rows.

        It holds rows without prefixes whose adapters' effects are those of the kernels.
        """
        shape = None if plan is None else plan.shape
        if plan is not None and shape is None:
            return None
        places = [row.place() for row in rows]
        if any(own.writer.is_shifted or own.cross.num_front for own in places):
            return None
        bucket = next(size for size in self._buckets if size >= len(rows))
        logits = self._run(rows, plan, shape, bucket)
        return None if logits is None else logits[: len(rows)]

    def _run(
        self, rows: Sequence[Row], plan: DecodePlan | None, shape: Hashable, bucket: int
    ) -> Tensor | None:
        for bias in self._biases:
            bias.reserve(1 + max((row.position for row in rows), default=0))
        if plan is not None:
            plan.refresh()
        inputs = self._write(rows, bucket)
        own = inputs[2 : 2 + _PLACE_FIELDS]
        cross = None if self.cross is None else inputs[2 + _PLACE_FIELDS :]
        context = _Context(self, own, cross)

        def step() -> Tensor:
            hidden = self.stack.forward(inputs[0], inputs[1], plan, context)
            return self._output(hidden)

        reaches = tuple(bias.reach for bias in self._biases)
        return self._recorder.run((bucket, shape, reaches), step)

    def _write(self, rows: Sequence[Row], bucket: int) -> Tensor:
        """What is new in this step (fields, B), in its place on the device by one copy."""
        fields = [
            [row.token for row in rows],
            [row.position for row in rows],
            *self.own.find(rows),
            [row.position + 1 for row in rows],
        ]
        if self.cross is not None:
            fields += [*self.cross.find(rows), [row.num_read for row in rows]]
        padding = [0] * (bucket - len(rows))
        flat = [value for field in fields for value in (*field, *padding)]
        inputs = self._inputs[: len(flat)]
        is_pinned = self._device.type == "cuda" and can_pin()
        host = torch.tensor(flat, dtype=torch.int64, device="cpu", pin_memory=is_pinned)
        inputs.copy_(host, non_blocking=True)
        return inputs.view(self._num_fields, bucket)
