"""One artefact in host memory: what is left to do is to prepare it for a backbone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from adapters_store.manifest import Manifest

WEIGHTS = "routing/weights"
_UNUSED = frozenset({"routing/logits"})


@dataclass(frozen=True, slots=True)
class Item:
    """Parts and tensors of an artefact; ``bank`` is the digest that a routing names, else None."""

    kind: str
    bank: str | None
    parts: tuple[Any, ...]
    tensors: Mapping[str, Tensor]

    @classmethod
    def of(cls, manifest: Manifest, tensors: Mapping[str, Tensor]) -> Item:
        """The item of an artefact as it was read, without the tensors that only training needs."""
        kept = {name: tensor for name, tensor in tensors.items() if name not in _UNUSED}
        return cls(manifest.kind, manifest.bank, tuple(manifest.parts), kept)

    @property
    def num_bytes(self) -> int:
        """Bytes of the tensors."""
        return sum(tensor.nbytes for tensor in self.tensors.values())
