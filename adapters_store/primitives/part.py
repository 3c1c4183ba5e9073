"""The base of all parts, and the tensors that a part owns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from adapters_store.errors import InvalidArtefactError
from adapters_store.families.shapes import BackboneShapes
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


class Part(BaseModel, ABC):
    """One effect of an artefact. Subclasses fix ``primitive`` and name their tensors."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kinds: ClassVar[frozenset[Kind]]
    is_single: ClassVar[bool] = False
    primitive: str

    @property
    def key(self) -> tuple[str, str]:
        """What may occur once per artefact: the primitive and the place where it acts."""
        return self.primitive, ""

    @abstractmethod
    def tensor_specs(self, shapes: BackboneShapes) -> tuple[TensorSpec, ...]:
        """The tensors of this part on that backbone; raises typed errors where it cannot fit."""


def check_rank(rank: int, site: Site) -> None:
    """Raise InvalidArtefactError where ``rank`` exceeds the smaller side of the site's matrix."""
    bound = min(site.in_features, site.out_features)
    if rank > bound:
        raise InvalidArtefactError(
            f"rank {rank} at site {site.name!r} is above min(in, out) = {bound}"
        )


__all__ = [
    "BackboneShapes",
    "Count",
    "Kind",
    "Part",
    "Scale",
    "SiteName",
    "TensorSpec",
    "check_rank",
]
