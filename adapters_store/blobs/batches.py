"""Many blobs at once: bounded batches, and the same action on each of them side by side."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from adapters_store.limits import MIB

Item = TypeVar("Item")
Result = TypeVar("Result")

_BATCH_BYTES = 64 * MIB
_BATCH_ITEMS = 512


def batches(items: Iterable[bytes]) -> Iterator[list[bytes]]:
    """The items in lists of at most 512, each ended by the item that reaches 64 MiB."""
    batch: list[bytes] = []
    num_bytes = 0
    for data in items:
        batch.append(data)
        num_bytes += len(data)
        if len(batch) == _BATCH_ITEMS or num_bytes >= _BATCH_BYTES:
            yield batch
            batch, num_bytes = [], 0
    if batch:
        yield batch


def side_by_side(
    action: Callable[[Item], Result], items: Sequence[Item], *, num_threads: int
) -> list[Result]:
    """``action`` of each item in order, that many at a time; raises the first failure."""
    if len(items) < 2:
        return [action(item) for item in items]
    with ThreadPoolExecutor(min(num_threads, len(items)), "blobs") as pool:
        return list(pool.map(action, items))
