"""``scale``: one vector that multiplies a linear site's input or output, as in IA3."""

from __future__ import annotations

from typing import ClassVar, Literal

from adapters_store.primitives.part import BackboneShapes, Kind, Part, SiteName, TensorSpec


class ScalePart(Part):
    """Tensor ``{site}/scale/{side}``: (in,) for ``x *= v``, (out,) for ``y *= v``.

    The output is scaled with everything that other parts add at the site, and with its bias.
    Source: IA3, Liu et al. 2022.
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset({"adapter"})
    primitive: Literal["scale"] = "scale"
    site: SiteName
    side: Literal["input", "output"]

    @property
    def key(self) -> tuple[str, str]:
        """One part per site and side."""
        return self.primitive, f"{self.site}/{self.side}"

    def tensor_specs(self, shapes: BackboneShapes) -> tuple[TensorSpec, ...]:
        """The vector; raises where the site is unknown."""
        site = shapes.site(self.site)
        size = site.in_features if self.side == "input" else site.out_features
        return (TensorSpec(f"{self.site}/scale/{self.side}", (size,)),)
