"""Size limits: what a store takes from strangers. Every field is a count or a size in bytes."""

from __future__ import annotations

from dataclasses import dataclass

KIB, MIB, GIB = 1024, 1024**2, 1024**3


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds checked before anything is parsed or stored."""

    max_manifest_bytes: int = 8 * MIB
    max_header_bytes: int = 8 * MIB
    max_data_bytes: int = 2 * GIB
    max_tensors: int = 20_000
    max_parts: int = 10_000


DEFAULT_LIMITS = Limits()
