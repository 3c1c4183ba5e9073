"""Artefact format 1: the manifest. Its canonical JSON is the artefact's identity."""

from __future__ import annotations

from functools import cached_property
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
    model_validator,
)

from adapters_store.canonical import canonical_json, digest_of, strict_json
from adapters_store.errors import ArtefactTooLargeError, InvalidArtefactError
from adapters_store.limits import DEFAULT_LIMITS, Limits
from adapters_store.primitives import Part, as_part
from adapters_store.primitives.head import HeadPart
from adapters_store.primitives.low_rank import LowRankPart
from adapters_store.primitives.mixture import BankPart
from adapters_store.primitives.part import Kind
from adapters_store.primitives.routing import RoutingPart
from adapters_store.signature import Example, Task, TaskSignature
from adapters_store.tensor_file import refuse_unsafe

FORMAT = "patchbay-artefact/1"
DATA_MEDIA_TYPE = "application/vnd.patchbay.data.v1+safetensors"
MANIFEST_FILE = "manifest.json"
DATA_FILE = "data.safetensors"

Digest = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
Dtype = Literal["F32", "F16", "BF16"]
Size = Annotated[int, Field(strict=True, ge=0, le=2**53)]
AnyPart = Annotated[SerializeAsAny[Part], BeforeValidator(as_part)]


class TensorEntry(BaseModel):
    """One tensor of the data blob: name, dtype and shape in elements."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: Annotated[str, Field(min_length=1, max_length=300)]
    dtype: Dtype
    shape: Annotated[tuple[Size, ...], Field(max_length=8)]


class Descriptor(BaseModel):
    """A blob: its media type, digest and size in bytes."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    media_type: Literal["application/vnd.patchbay.data.v1+safetensors"] = (
        "application/vnd.patchbay.data.v1+safetensors"
    )
    digest: Digest
    size_bytes: Size


class Manifest(BaseModel):
    """Everything about an artefact but its tensors' bytes. Frozen; unknown keys are refused.

    ``bank`` is the artefact digest of the bank that a routing mixes, None for other kinds;
    ``signature`` is None for banks. ``provenance`` is free JSON: method, seed, versions, scores.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    format: Literal["patchbay-artefact/1"] = "patchbay-artefact/1"
    kind: Kind
    family: Annotated[str, Field(min_length=1, max_length=63)]
    backbone: Digest
    bank: Digest | None = None
    parts: tuple[AnyPart, ...]
    tensors: tuple[TensorEntry, ...]
    data: Descriptor
    content_digest: Digest
    signature: TaskSignature | None = None
    provenance: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.kind == "routing") != (self.bank is not None):
            raise ValueError("a routing names its bank, and no other kind does")
        if (self.kind == "bank") == (self.signature is not None):
            raise ValueError("every adapter and routing has a signature, and no bank does")
        try:
            canonical_json(self.provenance)
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"provenance is not JSON: {error}") from error
        return self

    @cached_property
    def canonical(self) -> bytes:
        """The one JSON text of this manifest, as stored."""
        return canonical_json(self.model_dump(mode="json"))

    @cached_property
    def digest(self) -> str:
        """``sha256:<hex>`` of the canonical JSON: the artefact's identity."""
        return digest_of(self.canonical)

    @property
    def low_rank_parts(self) -> tuple[LowRankPart, ...]:
        """The ``low_rank`` parts in the manifest's order."""
        return tuple(part for part in self.parts if isinstance(part, LowRankPart))

    @property
    def bank_parts(self) -> tuple[BankPart, ...]:
        """The ``mixture`` parts in the manifest's order: the bank's order of sites."""
        return tuple(part for part in self.parts if isinstance(part, BankPart))

    @property
    def routing_part(self) -> RoutingPart | None:
        """The ``routing`` part, if there is one."""
        return next((part for part in self.parts if isinstance(part, RoutingPart)), None)

    @property
    def head_part(self) -> HeadPart | None:
        """The ``head`` part, if there is one."""
        return next((part for part in self.parts if isinstance(part, HeadPart)), None)


def parse_manifest(data: bytes, *, limits: Limits = DEFAULT_LIMITS) -> Manifest:
    """Parse a manifest; raises InvalidArtefactError that lists every wrong field with its place."""
    if len(data) > limits.max_manifest_bytes:
        raise ArtefactTooLargeError(
            f"manifest has {len(data)} bytes; the limit is {limits.max_manifest_bytes}"
        )
    refuse_unsafe(data[:16], "manifest")
    document = strict_json(data, "manifest")
    return make_manifest(document)


def make_manifest(document: Any) -> Manifest:
    """A manifest from a mapping; raises InvalidArtefactError that lists every wrong field."""
    try:
        return Manifest.model_validate(document)
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(step) for step in item['loc']) or 'manifest'}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        ]
        shown = "; ".join(problems[:8])
        more = f" (and {len(problems) - 8} more)" if len(problems) > 8 else ""
        raise InvalidArtefactError(f"manifest is not of format {FORMAT}: {shown}{more}") from error


__all__ = [
    "DATA_FILE",
    "DATA_MEDIA_TYPE",
    "FORMAT",
    "MANIFEST_FILE",
    "BankPart",
    "Descriptor",
    "Example",
    "HeadPart",
    "Kind",
    "LowRankPart",
    "Manifest",
    "Part",
    "RoutingPart",
    "Task",
    "TaskSignature",
    "TensorEntry",
    "make_manifest",
    "parse_manifest",
]
