"""Blobs that a collection took from under a publication, put again before it becomes visible."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from adapters_store.blobs import Blobs
from adapters_store.errors import ConflictError

if TYPE_CHECKING:
    from adapters_store.artefact import Artefact
    from adapters_store.manifest import Manifest


def put_lost_blobs(
    blobs: Blobs, manifests: Sequence[Manifest], at_hand: Sequence[Artefact]
) -> None:
    """Look after the blobs of a publication while the catalog's write lock keeps collections out.

    What is missing is put again from the artefacts ``at_hand``. Raises ConflictError where it is
    not among them.
    """
    lost = [
        digest
        for manifest in manifests
        for digest in (manifest.data.digest, manifest.digest)
        if blobs.size(digest) is None
    ]
    if not lost:
        return
    present: dict[str, bytes] = {}
    for artefact in at_hand:
        present[artefact.manifest.data.digest] = artefact.data
        present[artefact.digest] = artefact.manifest.canonical
    if not present.keys() >= set(lost):
        raise ConflictError(
            f"{len(lost)} blobs of this batch were collected while it was being stored",
            hint="Publish the batch again.",
        )
    blobs.put_many(present[digest] for digest in dict.fromkeys(lost))
