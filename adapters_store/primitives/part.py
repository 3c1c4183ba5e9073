"""The base of all parts, and the shapes that a part expects of its tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from adapters_store.errors import IncompatibleError, InvalidArtefactError
from adapters_store.families.site import Site

Kind = Literal["adapter", "bank", "routing"]
Count = Annotated[int, Field(strict=True, ge=1, le=2**31)]
Scale = Annotated[float, Field(strict=True, allow_inf_nan=False)]
SiteName = Annotated[str, Field(min_length=1, max_length=200)]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor that a part owns. An optional tensor may be absent."""

    name: str
    shape: tuple[int, ...]
    is_optional: bool = False
    is_non_negative: bool = False


@dataclass(frozen=True, slots=True)
class BackboneShapes:
    """What a part must know of a backbone: its sites by name and its width in elements."""

    sites: Mapping[str, Site]
    hidden_size: int

    def site(self, name: str) -> Site:
        """The site of that name; raises IncompatibleError naming a neighbour if there is none."""
        if name not in self.sites:
            known = ", ".join(list(self.sites)[:3])
            raise IncompatibleError(
                f"site {name!r} does not exist on this backbone; it has {len(self.sites)} sites, "
                f"such as {known}"
            )
        return self.sites[name]


class Part(BaseModel):
    """One effect of an artefact. Subclasses fix ``primitive`` and name their tensors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kinds: ClassVar[frozenset[Kind]]
    is_single: ClassVar[bool] = False
    primitive: str

    @property
    def key(self) -> tuple[str, str]:
        """What may occur once per artefact: the primitive and the place where it acts."""
        return self.primitive, ""

    def tensor_specs(self, shapes: BackboneShapes) -> tuple[TensorSpec, ...]:
        """The tensors of this part on that backbone; raises typed errors where it cannot fit."""
        raise NotImplementedError


def check_rank(rank: int, site: Site) -> None:
    """Raise InvalidArtefactError where ``rank`` exceeds the smaller side of the site's matrix."""
    bound = min(site.in_features, site.out_features)
    if rank > bound:
        raise InvalidArtefactError(
            f"rank {rank} at site {site.name!r} is above min(in, out) = {bound}"
        )
