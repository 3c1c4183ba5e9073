"""What a caller asks of the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from serving.engine.sampling import GREEDY, Sampling

RequestKind = Literal["generate", "classify", "embed"]

__all__ = ["Request", "RequestKind", "Sampling"]


@dataclass(frozen=True, slots=True)
class Request:
    """One row. ``adapter`` is an artefact digest, or None for the bare backbone.

    ``tenant`` is who pays for the work; ``priority`` orders the rows of one tenant, higher first.
    """

    id: str
    kind: RequestKind
    adapter: str | None
    input_ids: tuple[int, ...]
    sampling: Sampling = GREEDY
    tenant: str = ""
    priority: int = 0
