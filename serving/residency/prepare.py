"""From an artefact to the forms the engine runs. Pure functions; they run in loader threads."""

from __future__ import annotations

from typing import Any

import torch

from adapters_store.errors import IncompatibleError
from adapters_store.lazy import resolve
from serving.primitives import PRIMITIVES
from serving.primitives.mixture import Bank
from serving.primitives.prepared import Prepared, Target
from serving.residency.item import Item
from serving.residency.loader import ArtefactLoader
from serving.servable import check_servable


def load(loader: ArtefactLoader, digest: str, fingerprint: str) -> Item:
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
    return Item.of(manifest, tensors)


def prepare(item: Item, target: Target, bank: Bank | None) -> Prepared:
    """Run the ``prepare`` of every primitive of an item and merge what they made."""
    by_primitive: dict[str, list[Any]] = {}
    for part in item.parts:
        by_primitive.setdefault(part.primitive, []).append(part)
    prepared = Prepared()
    with torch.inference_mode():
        for primitive, parts in by_primitive.items():
            function = resolve(PRIMITIVES, primitive, "serving primitive")
            extra = () if item.kind != "routing" or primitive != "routing" else (bank,)
            prepared = prepared.merged(function(parts, item.tensors, target, *extra))
    return prepared
