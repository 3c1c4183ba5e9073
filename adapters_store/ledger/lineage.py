"""Lineage: what an artefact was made from, as training states it in the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from adapters_store.errors import InvalidArtefactError
from adapters_store.ledger.ancestry import LINEAGE_KEY

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
