"""Which of the things that nobody uses should go first: LRU that weighs cost against size.

GreedyDual-Size (Cao and Irani 1997): a thing is worth what bringing it back costs per byte, on top
of a clock that rises to the worth of whatever goes. Among equals the least recently used goes.
"""

from __future__ import annotations

import heapq
from itertools import count

_LATENCY_S = 1e-3
_BYTES_PER_S = 1e9


class Victims:
    """Keys that may go. Every operation costs O(log n)."""

    def __init__(self) -> None:
        self._clock = 0.0
        self._numbers = count()
        self._current: dict[str, int] = {}
        self._heap: list[tuple[float, int, str]] = []

    def __contains__(self, key: str) -> bool:
        return key in self._current

    def __len__(self) -> int:
        return len(self._current)

    def offer(self, key: str, num_bytes: int) -> None:
        """``key`` was used just now and may go from here on.

        Bringing back ``num_bytes`` is taken to cost a millisecond and a nanosecond a byte.
        """
        cost_s = _LATENCY_S + num_bytes / _BYTES_PER_S
        number = next(self._numbers)
        self._current[key] = number
        heapq.heappush(self._heap, (self._clock + cost_s / max(num_bytes, 1), number, key))
        if len(self._heap) > 64 + 2 * len(self._current):
            self._heap = [one for one in self._heap if self._current.get(one[2]) == one[1]]
            heapq.heapify(self._heap)

    def withdraw(self, key: str) -> None:
        """``key`` is in use, or gone."""
        self._current.pop(key, None)

    def pop(self) -> str | None:
        """Take out the key that should go first; None where none may."""
        while self._heap:
            worth, number, key = heapq.heappop(self._heap)
            if self._current.get(key) == number:
                self._clock = worth
                del self._current[key]
                return key
        return None
