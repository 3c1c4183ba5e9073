"""Ways for an artefact to come in: uploaded files, a source folder, a routing vector."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from adapters_store.artefact import Artefact, build_artefact, read_artefact
from adapters_store.errors import (
    ForbiddenError,
    IncompatibleError,
    InvalidArtefactError,
    UsageError,
)
from adapters_store.manifest import BankPart, Manifest, RoutingPart, parse_manifest
from adapters_store.names import is_digest
from adapters_store.store import Store
from serving.api.schemas import RoutingBody
from serving.api.served import ServedBackbone


def from_upload(manifest: bytes, data: bytes) -> Artefact:
    """The artefact of two uploaded parts; publishing validates it against its backbone."""
    return Artefact(parse_manifest(manifest), data)


def from_source(source: str, roots: Sequence[Path]) -> Artefact:
    """The artefact in a folder below one of the configured roots.

    Raises :class:`ForbiddenError` for paths outside them, links resolved, and
    :class:`UsageError` for schemes other than ``file``.
    """
    url = urlsplit(source)
    if url.scheme != "file" or url.netloc not in ("", "localhost"):
        raise UsageError(
            f"source {source[:200]!r} is not a local file:// URL",
            hint="Give file:///folder, or upload manifest and data as multipart.",
            param="source",
        )
    folder = Path(unquote(url.path)).resolve()
    if not any(folder.is_relative_to(root) for root in roots):
        raise ForbiddenError(
            f"source {source[:200]!r} is outside the folders this server reads",
            hint="Add the folder to `sources` in the server's configuration.",
        )
    return read_artefact(folder)


def from_routing(body: RoutingBody, store: Store, served: Sequence[ServedBackbone]) -> Artefact:
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
    return build_artefact(
        kind="routing",
        backbone=backbone,
        parts=[part],
        tensors={"routing/weights": torch.tensor(body.weights, dtype=torch.float32)},
        signature=body.signature,
        bank=bank.digest,
        provenance=body.provenance,
    )


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
