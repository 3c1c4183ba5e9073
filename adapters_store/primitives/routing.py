"""``routing``: one task's mixing weights over the sites of one bank."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from adapters_store.primitives.part import (
    BackboneShapes,
    Count,
    Kind,
    Part,
    SiteName,
    TensorSpec,
)

WEIGHTS = "routing/weights"
LOGITS = "routing/logits"


class RoutingPart(Part):
    """Tensors ``routing/weights`` and optionally ``routing/logits``, both (S, H, K).

    ``sites`` are the bank's S sites in the bank's order. Weights are stored after the gate: they
    are non-negative, and their rows need not sum to 1. Logits travel along for further training.
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset({"routing"})
    is_single: ClassVar[bool] = True
    primitive: Literal["routing"] = "routing"
    sites: Annotated[tuple[SiteName, ...], Field(min_length=1)]
    num_skills: Count
    num_heads: Count

    def tensor_specs(self, shapes: BackboneShapes) -> tuple[TensorSpec, ...]:
        """``weights`` and ``logits``; raises where a site is unknown."""
        for name in self.sites:
            shapes.site(name)
        shape = (len(self.sites), self.num_heads, self.num_skills)
        return (
            TensorSpec(WEIGHTS, shape, is_non_negative=True),
            TensorSpec(LOGITS, shape, is_optional=True),
        )
