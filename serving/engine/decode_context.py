"""What the rows of a decode step attend to: their places in the slabs.

Shapes: ``R`` rows, ``n`` rows of a slab, ``I`` query width, ``E`` queries, keys and values.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from serving.engine.kv_store import Group
from serving.engine.transformer.stack import Stack


class DecodeContext:
    """Attention of one decode step over the slabs."""

    def __init__(self, stack: Stack, own: Sequence[Group], cross: Sequence[Group]) -> None:
        self._record = stack.record
        self._width = stack.query_width
        self._own, self._cross = own, cross

    def attend_self(self, layer: int, qkv_RE: Tensor) -> Tensor:
        """Keep each row's key and value and attend over all that it has."""
        out: Tensor | None = None
        for group in self._own:
            assert group.places is not None
            qkv = group.pick(qkv_RE)
            group.slab.write(layer, group.places, qkv[:, self._width :])
            q, mask = qkv[:, : self._width], group.masks[layer]
            out = self._attend(layer, group, q, mask, out, qkv_RE.shape[0])
        assert out is not None
        return out

    def attend_cross(self, layer: int, q_RI: Tensor) -> Tensor:
        """Attend over what each row has read."""
        out: Tensor | None = None
        for group in self._cross:
            q = group.pick(q_RI)
            out = self._attend(layer, group, q, group.masks[layer], out, q_RI.shape[0])
        assert out is not None
        return out

    def _attend(
        self,
        layer: int,
        group: Group,
        q_nI: Tensor,
        mask: Tensor | None,
        out: Tensor | None,
        num_rows: int,
    ) -> Tensor:
        """Attention of one group's rows, placed among those of the batch."""
        found = group.slab.attend(self._record, layer, q_nI, group.length, mask)
        if group.index is None:
            return found
        if out is None:
            out = found.new_empty(num_rows, found.shape[1])
        return out.index_copy_(0, group.index, found)
