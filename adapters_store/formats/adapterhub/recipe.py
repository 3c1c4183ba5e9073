"""How a tensor is made of stored ones; recipes compose, and nothing is read before an import."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from adapters_store.formats.inspection import Piece, TensorRef

if TYPE_CHECKING:
    import torch

Make = Callable[[Sequence["torch.Tensor"]], "torch.Tensor"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Stored tensors and the function that makes one tensor of them, in their order."""

    sources: tuple[TensorRef, ...]
    make: Make

    def piece(self, name: str) -> Piece:
        """The recipe for the artefact's tensor of that name."""
        return Piece(name, self.sources, self.make)

    def times(self, factor: TensorRef) -> Recipe:
        """The result multiplied by a stored tensor, in float32."""
        return Recipe(
            (*self.sources, factor),
            lambda found: self.make(found[:-1]).float() * found[-1].float(),
        )


def as_stored(source: TensorRef) -> Recipe:
    """A tensor that is taken over unchanged."""
    return Recipe((source,), lambda found: found[0])


def transposed(source: TensorRef) -> Recipe:
    """A matrix that is stored the other way round."""
    return Recipe((source,), lambda found: found[0].T)


def zeros(size: int) -> Recipe:
    """A vector of zeros, for a bias that the file does without."""

    def make(_: Sequence[torch.Tensor]) -> torch.Tensor:
        import torch

        return torch.zeros(size)

    return Recipe((), make)
