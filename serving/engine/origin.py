"""What rows have in common that can share the reading of an input."""

from __future__ import annotations


class Origin:
    """An adapter's digest, or None, and an input; equal where both are, and hashed once."""

    __slots__ = ("_hash", "adapter", "ids")

    def __init__(self, adapter: str | None, ids: tuple[int, ...]) -> None:
        self.adapter, self.ids = adapter, ids
        self._hash = hash((adapter, ids))

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Origin) or self._hash != other._hash:
            return False
        return self.adapter == other.adapter and self.ids == other.ids
