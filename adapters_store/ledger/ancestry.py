"""Ancestry: what an artefact was made from and what was made from it, as the catalog knows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

LINEAGE_KEY = "lineage"
"""Where a manifest's provenance states its lineage."""

Relation = Literal["bank", "parent", "child", "routing"]


@dataclass(frozen=True, slots=True)
class Relative:
    """One artefact above or below another; ``references`` are some of its live versions.

    ``depth`` counts the steps between them. ``kind`` is None for a digest that was never stored
    here.
    """

    digest: str
    relation: Relation
    depth: int
    kind: str | None
    references: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """The stable JSON form."""
        return {
            "digest": self.digest,
            "relation": self.relation,
            "depth": self.depth,
            "kind": self.kind,
            "references": list(self.references),
        }


@dataclass(frozen=True, slots=True)
class Ancestry:
    """Where a version comes from and what was made from it.

    ``stated`` is the lineage in its manifest as JSON, None where it states none. ``ancestors``
    are its bank and parents and theirs, nearest first; ``children`` were made from it directly.
    ``is_cut`` says that a bound left some out.
    """

    reference: str
    digest: str
    bank: str | None
    stated: Mapping[str, Any] | None
    ancestors: tuple[Relative, ...]
    children: tuple[Relative, ...]
    is_cut: bool

    def as_json(self) -> dict[str, Any]:
        """The stable JSON form."""
        return {
            "reference": self.reference,
            "digest": self.digest,
            "bank": self.bank,
            "lineage": None if self.stated is None else dict(self.stated),
            "ancestors": [one.as_json() for one in self.ancestors],
            "children": [one.as_json() for one in self.children],
            "is_cut": self.is_cut,
        }
