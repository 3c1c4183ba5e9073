"""The one object that follows a request through the engine."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from serving.engine.request import Request
from serving.primitives.prepared import Prepared
from serving.residency.cache import Entry

_BARE = Prepared()


@dataclass(slots=True, eq=False)
class Row:
    """``token`` is the next decoder input at ``position``; ``entry`` the leased adapter, if any.

    The lease ends when the row has joined the decode batch; ``is_routed`` stays.
    """

    request: Request
    entry: Entry | None = None
    generator: torch.Generator | None = None
    token: int = 0
    position: int = 0
    num_output: int = 0
    is_routed: bool = False

    @property
    def prepared(self) -> Prepared:
        """The adapter's runnable parts; empty for a bare row. The entry must be ready."""
        if self.entry is None:
            return _BARE
        assert self.entry.prepared is not None
        return self.entry.prepared

    @property
    def num_input(self) -> int:
        """Input tokens."""
        return len(self.request.input_ids)
