"""``prefix``: key and value rows that stand before an attention's own."""

from __future__ import annotations

from typing import ClassVar, Literal

from adapters_store.primitives.part import (
    BackboneShapes,
    Count,
    Kind,
    Part,
    SiteName,
    TensorSpec,
)


class PrefixPart(Part):
    """Tensors ``{attention}/prefix/key`` and ``/value`` (kv_heads, num_tokens, head_dim).

    The rows are used as they are: no rotary position is applied to them. With ``shifts_positions``
    the row's own tokens begin at position ``num_tokens``, else at 0. A relative bias counts
    columns: prefix row j is column j, token t column ``num_tokens + t``, and query i stands at
    column ``num_tokens + i`` with ``shifts_positions``, else at column i. Every query sees every
    row. Source: Li and Liang 2021.
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset({"adapter"})
    primitive: Literal["prefix"] = "prefix"
    attention: SiteName
    num_tokens: Count
    shifts_positions: bool

    @property
    def key(self) -> tuple[str, str]:
        """One part per attention."""
        return self.primitive, self.attention

    def tensor_specs(self, shapes: BackboneShapes) -> tuple[TensorSpec, ...]:
        """Keys and values; raises where the attention is unknown."""
        place = shapes.attention(self.attention)
        shape = (place.num_kv_heads, self.num_tokens, place.head_dim)
        stem = f"{self.attention}/prefix"
        return (TensorSpec(f"{stem}/key", shape), TensorSpec(f"{stem}/value", shape))
