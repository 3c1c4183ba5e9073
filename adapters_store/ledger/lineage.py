"""Lineage: what an artefact was made from, as training states it and as the catalog knows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from adapters_store.errors import InvalidArtefactError

LINEAGE_KEY = "lineage"
MAX_PARENTS = 64

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Word = Annotated[str, Field(min_length=1, max_length=200)]


class Lineage(BaseModel):
    """What ``provenance["lineage"]`` holds. Frozen; unknown keys are refused.

    ``parents`` are artefact digests that this one was made from, beside a routing's bank.
    ``data_digest`` is of the training data, ``config_digest`` of the canonical JSON of the recipe;
    ``versions`` are packages, ``code`` a revision of the training code.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    parents: Annotated[tuple[Digest, ...], Field(max_length=MAX_PARENTS)] = ()
    data_digest: Digest | None = None
    config_digest: Digest | None = None
    seed: Annotated[int, Field(strict=True, ge=-(2**63), lt=2**63)] | None = None
    versions: Annotated[dict[Word, Word], Field(max_length=64)] = Field(default_factory=dict)
    code: Annotated[str, Field(min_length=1, max_length=300)] | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(set(self.parents)) != len(self.parents):
            raise ValueError("a parent is named twice")
        return self


def lineage_of(provenance: Mapping[str, Any]) -> Lineage | None:
    """The lineage in a manifest's provenance, or None; raises InvalidArtefactError.

    Publication calls it, reading does not: what older releases stored stays readable.
    """
    if LINEAGE_KEY not in provenance:
        return None
    try:
        return Lineage.model_validate(provenance[LINEAGE_KEY])
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(step) for step in item['loc']) or 'value'}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        ]
        raise InvalidArtefactError(
            f"provenance.{LINEAGE_KEY} is not a lineage: {'; '.join(problems[:8])}",
            hint="See docs/registry/ledger.md for its fields; other provenance is free JSON.",
        ) from error


@dataclass(frozen=True, slots=True)
class Relative:
    """One artefact above or below another; ``references`` are its versions that this store has.

    ``depth`` counts the steps between them. ``kind`` is None for a digest that was never stored
    here.
    """

    digest: str
    relation: Literal["bank", "parent", "child", "routing"]
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
