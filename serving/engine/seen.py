"""The distinct tokens that a row has read and written, for penalties."""

from __future__ import annotations

from array import array
from collections.abc import Iterable


class Seen:
    """``tokens`` are distinct, ``counts`` says how often each was written (0: only read)."""

    __slots__ = ("_at", "counts", "tokens")

    def __init__(self, read: Iterable[int] = ()) -> None:
        self.tokens = array("q")
        self.counts = array("f")
        self._at: dict[int, int] = {}
        for token in read:
            self._place(token)

    def write(self, token: int) -> None:
        """Count one written token."""
        self.counts[self._place(token)] += 1

    def copy(self) -> Seen:
        """An independent copy, for a beam that forks."""
        made = Seen()
        made.tokens, made.counts, made._at = self.tokens[:], self.counts[:], self._at.copy()
        return made

    def _place(self, token: int) -> int:
        at = self._at.setdefault(token, len(self.tokens))
        if at == len(self.tokens):
            self.tokens.append(token)
            self.counts.append(0.0)
        return at
