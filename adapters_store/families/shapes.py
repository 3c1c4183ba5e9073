"""The shapes of a backbone as parts and validation read them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol, TypeVar

from adapters_store.errors import IncompatibleError
from adapters_store.families.anatomy import Anatomy, Attention, Block, Input, Vector
from adapters_store.families.site import Site


class _Named(Protocol):
    @property
    def name(self) -> str: ...


Place = TypeVar("Place", bound=_Named)


@dataclass(frozen=True)
class BackboneShapes:
    """What a part must know of a backbone: its places by canonical name, sizes in elements.

    The lookups raise IncompatibleError with examples where the backbone has no such place.
    """

    sites: Mapping[str, Site]
    anatomy: Anatomy

    @property
    def hidden_size(self) -> int:
        """The width of the last hidden state, which heads read."""
        return self.anatomy.width

    def site(self, name: str) -> Site:
        """The linear site of that name."""
        return _find(self.sites, name, "site")

    def block(self, name: str) -> Block:
        """The end of a sub-layer of that name."""
        return _find(self._blocks, name, "block")

    def attention(self, name: str) -> Attention:
        """The attention of that name."""
        return _find(self._attentions, name, "attention")

    def vector(self, name: str) -> Vector:
        """The vector of that name."""
        return _find(self._vectors, name, "vector")

    def input(self, name: str) -> Input:
        """The stack input of that name."""
        return _find(self._inputs, name, "input")

    @cached_property
    def _blocks(self) -> Mapping[str, Block]:
        return _by_name(self.anatomy.blocks)

    @cached_property
    def _attentions(self) -> Mapping[str, Attention]:
        return _by_name(self.anatomy.attentions)

    @cached_property
    def _vectors(self) -> Mapping[str, Vector]:
        return _by_name(self.anatomy.vectors)

    @cached_property
    def _inputs(self) -> Mapping[str, Input]:
        return _by_name(self.anatomy.inputs)


def _by_name(places: Iterable[Place]) -> Mapping[str, Place]:
    return {place.name: place for place in places}


def _find(places: Mapping[str, Place], name: str, what: str) -> Place:
    if name not in places:
        known = ", ".join(list(places)[:3]) or "none"
        raise IncompatibleError(
            f"{what} {name!r} does not exist on this backbone; it has {len(places)} {what}s, "
            f"such as {known}"
        )
    return places[name]
