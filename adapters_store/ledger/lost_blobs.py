"""Blobs that a collection took from under a publication, put again before it becomes visible."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING

from sqlalchemy import Connection

from adapters_store.blobs import Blobs
from adapters_store.blobs.batches import side_by_side
from adapters_store.catalog import reachability
from adapters_store.errors import ConflictError

if TYPE_CHECKING:
    from adapters_store.artefact import Artefact
    from adapters_store.manifest import Manifest

_BATCH_BLOBS = 500
_NUM_THREADS = 16


def put_lost_blobs(
    connection: Connection,
    blobs: Blobs,
    manifests: Sequence[Manifest],
    at_hand: Sequence[Artefact],
) -> None:
    """Look after the blobs of a publication while the catalog's write lock keeps collections out.

    What is missing is put again from the artefacts ``at_hand``. Raises ConflictError where it is
    not among them.
    """
    lost = list(_lost(connection, blobs, manifests))
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
    blobs.put_many(present[digest] for digest in lost)


def _lost(connection: Connection, blobs: Blobs, manifests: Sequence[Manifest]) -> Iterator[str]:
    """Digests whose blobs are not there; none that the catalog needs already was collected."""
    every = (digest for one in manifests for digest in (one.data.digest, one.digest))
    digests = iter(dict.fromkeys(every))
    while some := list(islice(digests, _BATCH_BLOBS)):
        needed = reachability.needed_blobs(connection, some)
        asked = [digest for digest in some if digest not in needed]
        sizes = side_by_side(blobs.size, asked, num_threads=_NUM_THREADS)
        yield from (digest for digest, size in zip(asked, sizes, strict=True) if size is None)
