"""``bottleneck``: ``f += scale * (act(z down + c) up + b)`` at the end of a sub-layer.

``x``, ``u`` and ``f`` are as in :mod:`adapters_store.families.anatomy`: the residual stream, what
the sub-layer reads and what it adds. A pre-norm layer then gives ``x + f``, a post-norm layer
``norm(x + f)``.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from adapters_store.primitives.part import (
    BackboneShapes,
    Count,
    Kind,
    Part,
    Scale,
    SiteName,
    TensorSpec,
)

BottleneckActivation = Literal[
    "relu", "gelu", "gelu_tanh", "silu", "tanh", "sigmoid", "leaky_relu", "identity"
]
Reads = Literal["output", "sum", "residual", "input"]


class BottleneckPart(Part):
    """Tensors ``{block}/bottleneck/{reads}/down`` (D, rank), ``down_bias``, ``up``, ``up_bias``.

    ``up`` is (rank, D), the biases are (rank,) and (D,); with ``norm_eps`` there are also
    ``norm_gain`` and ``norm_bias`` (D,).

    ``reads`` chooses z: ``output`` is f (Houlsby), ``sum`` is x + f, after the layer's own norm
    where norms stand behind (Pfeiffer), ``residual`` is x and ``input`` is u (parallel).
    ``norm_eps`` puts the part's own layer norm before ``down``. ``leaky_relu`` has slope 0.01.
    Source: Houlsby et al. 2019, Pfeiffer et al. 2020, He et al. 2021.
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset({"adapter"})
    primitive: Literal["bottleneck"] = "bottleneck"
    block: SiteName
    rank: Count
    activation: BottleneckActivation
    reads: Reads
    scale: Scale
    norm_eps: Annotated[float, Field(gt=0, lt=1)] | None = None

    @property
    def key(self) -> tuple[str, str]:
        """One part per block and place that it reads: a sequential and a parallel one may meet."""
        return self.primitive, f"{self.block}/{self.reads}"

    def tensor_specs(self, shapes: BackboneShapes) -> tuple[TensorSpec, ...]:
        """Both maps with their biases, and the norm if there is one; raises for unknown blocks."""
        width = shapes.block(self.block).width
        stem = f"{self.block}/bottleneck/{self.reads}"
        specs = [
            TensorSpec(f"{stem}/down", (width, self.rank)),
            TensorSpec(f"{stem}/down_bias", (self.rank,)),
            TensorSpec(f"{stem}/up", (self.rank, width)),
            TensorSpec(f"{stem}/up_bias", (width,)),
        ]
        if self.norm_eps is not None:
            specs.append(TensorSpec(f"{stem}/norm_gain", (width,)))
            specs.append(TensorSpec(f"{stem}/norm_bias", (width,)))
        return tuple(specs)
