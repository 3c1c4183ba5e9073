"""Batches of artefacts, taken a bounded part at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from adapters_store.limits import MIB

if TYPE_CHECKING:
    from adapters_store.artefact import Artefact

MAX_ITEMS = 1000
MAX_BYTES = 64 * MIB


def in_chunks(
    items: Iterable[tuple[str, Artefact]],
) -> Iterator[list[tuple[str, Artefact]]]:
    """The items in lists that hold at most ``MAX_ITEMS`` of them or a little over ``MAX_BYTES``."""
    chunk: list[tuple[str, Artefact]] = []
    num_bytes = 0
    for name, artefact in items:
        chunk.append((name, artefact))
        num_bytes += len(artefact.data)
        if len(chunk) == MAX_ITEMS or num_bytes >= MAX_BYTES:
            yield chunk
            chunk, num_bytes = [], 0
    if chunk:
        yield chunk
