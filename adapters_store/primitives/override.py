"""``override``: a row's own norm gain or bias, as in LayerNorm tuning and BitFit."""

from __future__ import annotations

from typing import ClassVar, Literal

from adapters_store.primitives.part import BackboneShapes, Kind, Part, SiteName, TensorSpec


class OverridePart(Part):
    """Tensor ``{vector}/override/value`` (size,): replaces the named vector, or is added to it.

    A linear site's bias that the backbone does not have counts as zeros. Source: BitFit, Ben Zaken
    et al. 2022.
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset({"adapter"})
    primitive: Literal["override"] = "override"
    vector: SiteName
    operation: Literal["replace", "add"]

    @property
    def key(self) -> tuple[str, str]:
        """One part per vector."""
        return self.primitive, self.vector

    def tensor_specs(self, shapes: BackboneShapes) -> tuple[TensorSpec, ...]:
        """The vector; raises where the backbone has no vector of that name."""
        return (TensorSpec(f"{self.vector}/override/value", (shapes.vector(self.vector).size,)),)
