"""Ways for an artefact to come in: uploaded files, a source, a routing vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from adapters_store.artefact import Artefact, build_artefact
from adapters_store.errors import IncompatibleError, InvalidArtefactError
from adapters_store.formats import Inspection, Source, inspect
from adapters_store.formats.importing import import_from
from adapters_store.formats.target import choose_backbone
from adapters_store.manifest import BankPart, Manifest, RoutingPart
from adapters_store.names import is_digest, parse_name
from adapters_store.records import Version
from adapters_store.signing import Signature
from adapters_store.store import Store
from serving.api.schemas import ImportFields, RoutingBody
from serving.api.served import ServedBackbone
from serving.api.service import Service
from serving.servable import check_servable
from serving.tenancy import Principal

Items = list[tuple[str, Artefact]]


def publish(
    service: Service,
    caller: Principal,
    name: str,
    aliases: Sequence[str],
    signature: str | None,
    make: Callable[[], Items],
) -> list[Version]:
    """Publish what ``make`` gives, if this server may and can serve it.

    Raises UnsignedError, NotServedError, IncompatibleError and what publishing raises; then
    nothing was stored.
    """
    tenant = parse_name(name).tenant
    signatures = [] if signature is None else [Signature.parse(signature)]
    served = {one.fingerprint for one in service.resolver.served}
    items = make()
    for _, artefact in items:
        manifest = artefact.manifest
        if manifest.backbone not in served:
            raise IncompatibleError(
                f"the artefact is for another backbone: {manifest.backbone} is not served here",
                hint="Serve its backbone with `patchbay serve --backbone FOLDER`.",
            )
        check_servable(manifest)
        if service.trust.requires_signature(tenant):
            kept = [one.signature for one in service.store.signatures.list(artefact.digest)]
            service.trust.check(tenant, artefact.digest, [*signatures, *kept])
    return service.store.publish_many(
        items, aliases=aliases, actor=caller.name, signatures=signatures
    )


def inspect_source(
    source: Source, fields: ImportFields, served: Sequence[ServedBackbone]
) -> Inspection:
    """The verdict on a source for a served backbone; raises what choosing one does."""
    record = choose_backbone([one.backbone.record for one in served], fields.backbone, source)
    return inspect(source, record, fields.options)


def from_source(
    source: Source, name: str, fields: ImportFields, served: Sequence[ServedBackbone]
) -> Items:
    """The artefacts of a source with their names; raises as importing does."""
    record = choose_backbone([one.backbone.record for one in served], fields.backbone, source)
    return [(name + suffix, one) for suffix, one in import_from(source, record, fields.options)]


def from_routing(body: RoutingBody, store: Store, served: Sequence[ServedBackbone]) -> Items:
    """The artefact of a posted routing vector over a published bank."""
    import torch

    bank = _bank_of(body.bank, store)
    backbones = {one.fingerprint: one.backbone for one in served}
    backbone = backbones.get(bank.backbone)
    if backbone is None:
        raise IncompatibleError(f"the bank's backbone {bank.backbone} is not served here")
    parts = [part for part in bank.parts if isinstance(part, BankPart)]
    first = parts[0]
    shape = (len(parts), first.num_heads, first.num_skills)
    _check_shape(body.weights, shape)
    part = RoutingPart(
        sites=tuple(one.site for one in parts),
        num_skills=first.num_skills,
        num_heads=first.num_heads,
    )
    artefact = build_artefact(
        kind="routing",
        backbone=backbone,
        parts=[part],
        tensors={"routing/weights": torch.tensor(body.weights, dtype=torch.float32)},
        signature=body.signature,
        bank=bank.digest,
        provenance=body.provenance,
    )
    return [(body.name, artefact)]


def _bank_of(text: str, store: Store) -> Manifest:
    digest = text if is_digest(text) else store.resolve(text).digest
    manifest = store.manifest(digest)
    if manifest.kind != "bank":
        raise IncompatibleError(
            f"{text} is of kind {manifest.kind!r}; a routing needs a bank", param="bank"
        )
    return manifest


def _check_shape(weights: Sequence[Sequence[Sequence[float]]], shape: tuple[int, int, int]) -> None:
    num_sites, num_heads, num_skills = shape
    is_right = len(weights) == num_sites and all(
        len(heads) == num_heads and all(len(skills) == num_skills for skills in heads)
        for heads in weights
    )
    if not is_right:
        raise InvalidArtefactError(
            f"weights must have the bank's shape (sites, heads, skills) = {shape}",
            param="weights",
        )
