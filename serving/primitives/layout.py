"""Packed sites: linear sites that read the same input and run as one matrix product.

``q``, ``k`` and ``v`` of one attention read the same tokens, so the engine keeps their weights in
one matrix and every primitive acts on the packed output. Only sites of equal widths are packed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from adapters_store.errors import IncompatibleError
from adapters_store.families.site import Site

_PACKS: tuple[tuple[str, ...], ...] = (
    ("self.q", "self.k", "self.v"),
    ("cross.k", "cross.v"),
    ("ffn.gate", "ffn.in"),
)


@dataclass(frozen=True, slots=True)
class PackedSite:
    """``members`` are the sites in output order; each is ``member_width`` columns wide.

    ``shares_input`` is True where the frozen product computes more than one site.
    """

    index: int
    members: tuple[Site, ...]
    shares_input: bool = False

    @property
    def in_features(self) -> int:
        """Width of the shared input, in elements."""
        return self.members[0].in_features

    @property
    def member_width(self) -> int:
        """Output columns of each member."""
        return self.members[0].out_features

    @property
    def num_members(self) -> int:
        """How many canonical sites the packed site holds."""
        return len(self.members)

    @property
    def width(self) -> int:
        """Output columns of all members."""
        return self.member_width * self.num_members

    @property
    def name(self) -> str:
        """For example ``decoder.0.self.q+k+v``."""
        head, _, first = self.members[0].name.rpartition(".")
        return f"{head}.{'+'.join([first, *(m.name.rpartition('.')[2] for m in self.members[1:])])}"


class SiteLayout:
    """All packed sites of a backbone, and where each canonical site went."""

    def __init__(self, sites: Iterable[Site]) -> None:
        groups: list[list[Site]] = []
        shared = Counter[tuple[str, int, tuple[str, ...]]]()
        for site in sites:
            shared[_pack_of(site)] += 1
            if groups and _belong_together(groups[-1][0], site):
                groups[-1].append(site)
            else:
                groups.append([site])
        self.packed = tuple(
            PackedSite(i, tuple(group), shared[_pack_of(group[0])] > 1)
            for i, group in enumerate(groups)
        )
        self._places = {
            site.name: (packed.index, position)
            for packed in self.packed
            for position, site in enumerate(packed.members)
        }

    def __contains__(self, site_name: str) -> bool:
        return site_name in self._places

    def place(self, site_name: str) -> tuple[int, int]:
        """Packed index and member position of a canonical site.

        Raises :class:`IncompatibleError` for a site that this backbone does not have.
        """
        place = self._places.get(site_name)
        if place is None:
            raise IncompatibleError(
                f"site {site_name!r} does not exist in this backbone; it has "
                f"{len(self._places)} sites, the first is {next(iter(self._places), None)!r}"
            )
        return place

    def sites_of(self, stack: str, layer: int, block: str) -> tuple[PackedSite, ...]:
        """Packed sites of one sub-layer (``self``, ``cross`` or ``ffn``) in execution order."""
        prefix = f"{stack}.{layer}.{block}."
        return tuple(p for p in self.packed if p.members[0].name.startswith(prefix))


def _pack_of(site: Site) -> tuple[str, int, tuple[str, ...]]:
    roles = next((pack for pack in _PACKS if site.role in pack), (site.role,))
    return site.stack, site.layer, roles


def _belong_together(first: Site, site: Site) -> bool:
    return _pack_of(first) == _pack_of(site) and (
        (first.in_features, first.out_features) == (site.in_features, site.out_features)
    )
