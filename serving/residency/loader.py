"""What residency needs of a store: one artefact by digest."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from adapters_store.manifest import Manifest


class ArtefactLoader(Protocol):
    """Reads an artefact by digest; called from the cache's own thread."""

    def load(self, digest: str) -> tuple[Manifest, dict[str, Tensor]]:
        """Manifest and tensors by name; raises a PatchbayError when it cannot."""
