"""From an artefact to the forms the engine runs. Pure functions; they run in the loader thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from adapters_store.errors import IncompatibleError
from adapters_store.lazy import resolve
from adapters_store.manifest import Manifest
from serving.primitives import PRIMITIVES
from serving.primitives.mixture import Bank
from serving.primitives.prepared import Prepared, Target
from serving.residency.loader import ArtefactLoader
from serving.servable import check_servable


def load(loader: ArtefactLoader, digest: str, fingerprint: str) -> Loaded:
    """Read one artefact.

    Raises IncompatibleError when it belongs to another backbone, NotServedError when a part of it
    has no serving primitive.
    """
    manifest, tensors = loader.load(digest)
    if manifest.backbone != fingerprint:
        raise IncompatibleError(
            f"artefact {digest} was made for backbone {manifest.backbone}; "
            f"this engine serves {fingerprint}"
        )
    check_servable(manifest)
    return manifest, tensors


Loaded = tuple[Manifest, dict[str, Tensor]]


def prepare(
    manifest: Manifest, tensors: Mapping[str, Tensor], target: Target, bank: Bank | None
) -> Prepared:
    """Run the ``prepare`` of every primitive in the manifest and merge what they made."""
    by_primitive: dict[str, list[Any]] = {}
    for part in manifest.parts:
        by_primitive.setdefault(part.primitive, []).append(part)
    prepared = Prepared()
    with torch.inference_mode():
        for primitive, parts in by_primitive.items():
            function = resolve(PRIMITIVES, primitive, "serving primitive")
            extra = () if manifest.kind != "routing" or primitive != "routing" else (bank,)
            prepared = prepared.merged(function(parts, tensors, target, *extra))
    return prepared
