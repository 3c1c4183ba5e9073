"""``head``: a task's own classifier over the pooled last hidden state."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from adapters_store.errors import IncompatibleError
from adapters_store.primitives.part import BackboneShapes, Count, Kind, Part, TensorSpec

WEIGHT = "head/weight"
BIAS = "head/bias"
DENSE_WEIGHT = "head/dense_weight"
DENSE_BIAS = "head/dense_bias"


def _is_none(value: object) -> bool:
    return value is None


class HeadPart(Part):
    """Tensors ``head/weight`` (num_labels, D) and ``head/bias`` (num_labels,).

    ``pooling`` makes one vector of a row: ``mean`` over its tokens, ``cls`` the first token,
    ``last`` the last token, ``pooled`` the backbone's own pooler. Where a prompt stands in front,
    ``cls`` and the pooler read its first row instead. With ``dense_size`` E a layer
    ``tanh(v dense_weight^T + dense_bias)`` stands first: tensors ``head/dense_weight`` (E, D) and
    ``head/dense_bias`` (E,), and ``head/weight`` is (num_labels, E).
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset({"adapter", "routing"})
    is_single: ClassVar[bool] = True
    primitive: Literal["head"] = "head"
    num_labels: Count
    pooling: Literal["mean", "cls", "last", "pooled"]
    dense_size: Annotated[Count | None, Field(exclude_if=_is_none)] = None

    def tensor_specs(self, shapes: BackboneShapes) -> tuple[TensorSpec, ...]:
        """Weights and biases; raises where the backbone has no pooler of its own to use."""
        if self.pooling == "pooled" and shapes.anatomy.pooler_path is None:
            raise IncompatibleError("the head pools with the backbone's pooler, and there is none")
        width = self.dense_size or shapes.hidden_size
        specs = [
            TensorSpec(WEIGHT, (self.num_labels, width)),
            TensorSpec(BIAS, (self.num_labels,)),
        ]
        if self.dense_size is not None:
            specs.append(TensorSpec(DENSE_WEIGHT, (self.dense_size, shapes.hidden_size)))
            specs.append(TensorSpec(DENSE_BIAS, (self.dense_size,)))
        return tuple(specs)
