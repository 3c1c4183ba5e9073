"""The shapes of a backbone as parts and validation read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from adapters_store.errors import IncompatibleError
from adapters_store.families.site import Site


@dataclass(frozen=True, slots=True)
class BackboneShapes:
    """What a part must know of a backbone: its sites by name and its width in elements."""

    sites: Mapping[str, Site]
    hidden_size: int

    def site(self, name: str) -> Site:
        """The site of that name; raises IncompatibleError with examples if there is none."""
        if name not in self.sites:
            known = ", ".join(list(self.sites)[:3])
            raise IncompatibleError(
                f"site {name!r} does not exist on this backbone; it has {len(self.sites)} sites, "
                f"such as {known}"
            )
        return self.sites[name]
