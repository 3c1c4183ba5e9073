"""The gate before the store: header first, data after. Nothing invalid passes, nothing is fixed.

Order: sizes and magic bytes, the blob's digest, the header, the manifest's tensors against the
header, the backbone, parts against the family's sites, the bank, and at last every value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from adapters_store.backbone import BackboneRecord
from adapters_store.canonical import digest_of
from adapters_store.errors import (
    ArtefactTooLargeError,
    IncompatibleError,
    InvalidArtefactError,
)
from adapters_store.fingerprint import content_digest
from adapters_store.ledger.lineage import lineage_of
from adapters_store.limits import DEFAULT_LIMITS, Limits
from adapters_store.manifest import Manifest
from adapters_store.primitives import TensorSpec
from adapters_store.tensor_file import StoredTensor, read_header, refuse_unsafe
from adapters_store.values import check_values


class HasManifestAndData(Protocol):
    """An artefact as validation sees it."""

    @property
    def manifest(self) -> Manifest:
        """The manifest."""
        ...

    @property
    def data(self) -> bytes:
        """The bytes of the safetensors blob."""
        ...


def validate(
    artefact: HasManifestAndData,
    backbone: BackboneRecord,
    bank: Manifest | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> None:
    """Check an artefact completely; ``bank`` is the manifest of a routing's bank.

    Raises UnsafeArtefactError, ArtefactTooLargeError, InvalidArtefactError or IncompatibleError
    with what was expected and what was found.
    """
    manifest = artefact.manifest
    if manifest.kind == "routing":
        check_bank(manifest, bank)
    validate_alone(manifest, artefact.data, backbone, limits)


def validate_alone(
    manifest: Manifest, data: bytes, backbone: BackboneRecord, limits: Limits = DEFAULT_LIMITS
) -> None:
    """All checks but those that need a routing's bank; raises as :func:`validate` does."""
    if len(data) > limits.max_data_bytes:
        raise ArtefactTooLargeError(
            f"data has {len(data)} bytes; the limit is {limits.max_data_bytes}"
        )
    if len(manifest.canonical) > limits.max_manifest_bytes:
        raise ArtefactTooLargeError(
            f"manifest has {len(manifest.canonical)} bytes; the limit is "
            f"{limits.max_manifest_bytes}"
        )
    refuse_unsafe(data[:16], "data")
    table = read_header(data, limits=limits)
    _check_descriptor(manifest, data)
    specs = validate_header(manifest, table, backbone, limits)
    non_negative = {name for name, spec in specs.items() if spec.is_non_negative}
    check_values(data, table, non_negative)
    found = content_digest(data, table)
    if found != manifest.content_digest:
        raise InvalidArtefactError(
            f"content digest mismatch: the manifest says {manifest.content_digest}, "
            f"the tensors give {found}"
        )


def validate_header(
    manifest: Manifest,
    table: Sequence[StoredTensor],
    backbone: BackboneRecord,
    limits: Limits = DEFAULT_LIMITS,
) -> dict[str, TensorSpec]:
    """Everything that can be checked before the tensors' bytes are read; raises as above.

    ``table`` is the data's header. Returns what :func:`part_specs` does.
    """
    _check_table(manifest, table)
    check_backbone(manifest, backbone)
    specs = part_specs(manifest, backbone, limits)
    _check_signature(manifest, backbone)
    lineage_of(manifest.provenance)
    _check_specs(specs, {tensor.name: tensor for tensor in table})
    return specs


def check_backbone(manifest: Manifest, backbone: BackboneRecord) -> None:
    """Raise IncompatibleError where the artefact was made for another backbone or family."""
    if manifest.backbone != backbone.fingerprint:
        raise IncompatibleError(
            f"the artefact is for another backbone: {manifest.backbone}, "
            f"expected {backbone.name} with fingerprint {backbone.fingerprint}"
        )
    if manifest.family != backbone.family:
        raise IncompatibleError(
            f"the artefact is for family {manifest.family!r}; "
            f"backbone {backbone.name} is of family {backbone.family!r}"
        )


def check_bank(manifest: Manifest, bank: Manifest | None) -> None:
    """Raise IncompatibleError where a routing does not fit its bank, part by part."""
    if bank is None or bank.digest != manifest.bank:
        raise IncompatibleError(
            f"the routing's bank {manifest.bank} is not in the store",
            hint="Publish the bank first; a routing names it by its artefact digest.",
        )
    if bank.kind != "bank":
        raise IncompatibleError(f"{manifest.bank} is of kind {bank.kind!r}; expected a bank")
    if bank.backbone != manifest.backbone:
        raise IncompatibleError(
            f"the routing is for backbone {manifest.backbone}; its bank is for {bank.backbone}"
        )
    part = manifest.routing_part
    if part is None:
        raise InvalidArtefactError("a routing holds exactly one routing part; found none")
    bank_sites = tuple(bank_part.site for bank_part in bank.bank_parts)
    if part.sites != bank_sites:
        raise IncompatibleError(
            f"the routing's sites are not the bank's sites in the bank's order: "
            f"{_first_difference(part.sites, bank_sites)}"
        )
    for bank_part in bank.bank_parts:
        found, expected = (
            (part.num_heads, part.num_skills),
            (bank_part.num_heads, bank_part.num_skills),
        )
        if found != expected:
            raise IncompatibleError(
                f"the routing has (heads, skills) {found}; its bank has {expected} "
                f"at site {bank_part.site!r}"
            )


def part_specs(
    manifest: Manifest, backbone: BackboneRecord, limits: Limits = DEFAULT_LIMITS
) -> dict[str, TensorSpec]:
    """Every tensor that the manifest's parts own, by name, on that backbone.

    Raises InvalidArtefactError for parts outside their kind or repeated, and what a part raises
    where it does not fit a site.
    """
    if not manifest.parts:
        raise InvalidArtefactError(f"the {manifest.kind} has no parts; expected at least one")
    if len(manifest.parts) > limits.max_parts:
        raise ArtefactTooLargeError(
            f"the manifest has {len(manifest.parts)} parts; the limit is {limits.max_parts}"
        )
    shapes = backbone.shapes
    specs: dict[str, TensorSpec] = {}
    seen: set[tuple[str, str]] = set()
    for part in manifest.parts:
        if manifest.kind not in part.kinds:
            raise InvalidArtefactError(
                f"a part of primitive {part.primitive!r} is not allowed in kind {manifest.kind!r}"
            )
        if part.key in seen:
            place = f" at site {part.key[1]!r}" if part.key[1] else ""
            raise InvalidArtefactError(f"duplicate part: {part.primitive}{place}")
        seen.add(part.key)
        specs.update({spec.name: spec for spec in part.tensor_specs(shapes)})
    if manifest.kind == "routing" and manifest.routing_part is None:
        raise InvalidArtefactError("a routing holds exactly one routing part; found none")
    return specs


def _check_descriptor(manifest: Manifest, data: bytes) -> None:
    if manifest.data.size_bytes != len(data):
        raise InvalidArtefactError(
            f"data has {len(data)} bytes; the manifest says {manifest.data.size_bytes}"
        )
    found = digest_of(data)
    if found != manifest.data.digest:
        raise InvalidArtefactError(
            f"data digest mismatch: the manifest says {manifest.data.digest}, "
            f"the bytes give {found}"
        )


def _check_table(manifest: Manifest, table: Sequence[StoredTensor]) -> None:
    listed = {entry.name: entry for entry in manifest.tensors}
    if len(listed) != len(manifest.tensors):
        raise InvalidArtefactError("the manifest lists a tensor twice")
    for tensor in table:
        entry = listed.pop(tensor.name, None)
        if entry is None:
            raise InvalidArtefactError(f"tensor {tensor.name!r} is not listed in the manifest")
        if (entry.dtype, entry.shape) != (tensor.dtype, tensor.shape):
            raise InvalidArtefactError(
                f"tensor {tensor.name!r} is {tensor.dtype} {list(tensor.shape)} in the data; "
                f"the manifest says {entry.dtype} {list(entry.shape)}"
            )
    if listed:
        raise InvalidArtefactError(f"missing tensor {sorted(listed)[0]!r}: listed, not in the data")


def _check_specs(specs: Mapping[str, TensorSpec], found: Mapping[str, StoredTensor]) -> None:
    extra = sorted(set(found) - set(specs))
    if extra:
        raise InvalidArtefactError(f"extra tensor {extra[0]!r}: no part of the manifest owns it")
    for name, spec in specs.items():
        tensor = found.get(name)
        if tensor is None and not spec.is_optional:
            raise InvalidArtefactError(f"missing tensor {name!r} of shape {list(spec.shape)}")
        if tensor is not None and tensor.shape != spec.shape:
            raise InvalidArtefactError(
                f"tensor {name!r} has shape {list(tensor.shape)}; expected {list(spec.shape)}"
            )


def _check_signature(manifest: Manifest, backbone: BackboneRecord) -> None:
    signature, head = manifest.signature, manifest.head_part
    if signature is None:
        return
    is_classification = signature.task == "classification"
    if is_classification != (head is not None):
        raise InvalidArtefactError(
            f"task {signature.task!r} with {'no' if head is None else 'a'} head: "
            "classification needs a head, and no other task has one"
        )
    if head is not None and len(signature.labels) != head.num_labels:
        raise InvalidArtefactError(
            f"the signature has {len(signature.labels)} labels; the head has {head.num_labels}"
        )
    if signature.task == "text2text" and not backbone.shapes.anatomy.can_generate:
        raise IncompatibleError(
            f"task 'text2text' needs a decoder; backbone {backbone.name} of family "
            f"{backbone.family!r} has none"
        )


def _first_difference(found: Sequence[str], expected: Sequence[str]) -> str:
    for index, (left, right) in enumerate(zip(found, expected)):
        if left != right:
            return f"site {index} is {left!r}, expected {right!r}"
    return f"{len(found)} sites, expected {len(expected)}"
