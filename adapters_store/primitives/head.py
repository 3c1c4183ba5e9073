"""``head``: a task's own classifier over the pooled last hidden state."""

from __future__ import annotations

from typing import ClassVar, Literal

from adapters_store.primitives.part import BackboneShapes, Count, Kind, Part, TensorSpec

WEIGHT = "head/weight"
BIAS = "head/bias"


class HeadPart(Part):
    """Tensors ``head/weight`` (num_labels, hidden) and ``head/bias`` (num_labels,).

    ``pooling`` makes one vector of a row: ``mean`` over its tokens, or ``cls``, the first token.
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset({"adapter", "routing"})
    is_single: ClassVar[bool] = True
    primitive: Literal["head"] = "head"
    num_labels: Count
    pooling: Literal["mean", "cls"]

    def tensor_specs(self, shapes: BackboneShapes) -> tuple[TensorSpec, ...]:
        """``weight`` and ``bias``."""
        return (
            TensorSpec(WEIGHT, (self.num_labels, shapes.hidden_size)),
            TensorSpec(BIAS, (self.num_labels,)),
        )
