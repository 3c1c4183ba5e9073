"""``low_rank``: ``y += scale * (x a) b`` at one linear site."""

from __future__ import annotations

from typing import ClassVar, Literal

from adapters_store.primitives.part import (
    BackboneShapes,
    Count,
    Kind,
    Part,
    Scale,
    SiteName,
    TensorSpec,
    check_rank,
)


class LowRankPart(Part):
    """Tensors ``{site}/low_rank/a`` (in, rank) and ``{site}/low_rank/b`` (rank, out)."""

    kinds: ClassVar[frozenset[Kind]] = frozenset({"adapter"})
    primitive: Literal["low_rank"] = "low_rank"
    site: SiteName
    rank: Count
    scale: Scale

    @property
    def key(self) -> tuple[str, str]:
        """One part per site."""
        return self.primitive, self.site

    def tensor_specs(self, shapes: BackboneShapes) -> tuple[TensorSpec, ...]:
        """``a`` and ``b``; raises where the site is unknown or the rank above min(in, out)."""
        site = shapes.site(self.site)
        check_rank(self.rank, site)
        return (
            TensorSpec(f"{self.site}/low_rank/a", (site.in_features, self.rank)),
            TensorSpec(f"{self.site}/low_rank/b", (self.rank, site.out_features)),
        )
