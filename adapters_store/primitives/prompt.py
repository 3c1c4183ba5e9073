"""``prompt``: rows before the token rows of a stack's input, or of a later layer's."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from adapters_store.errors import InvalidArtefactError
from adapters_store.primitives.part import (
    BackboneShapes,
    Count,
    Kind,
    Part,
    SiteName,
    TensorSpec,
)

LayerIndex = Annotated[int, Field(strict=True, ge=0, le=2**16)]


class PromptPart(Part):
    """Tensor ``{input}/prompt/{layer}/rows`` (num_tokens, D).

    ``layer`` 0 puts the rows before the token embeddings; layer i > 0 replaces, at the input of
    layer i, the outputs of the rows that were put in before (deep prompts). With ``has_positions``
    the rows of layer 0 pass through the embedding's own positions and norm like tokens, and the
    tokens follow at position ``num_tokens``; without, they enter the first layer as they are, and
    the tokens begin at 0. Positions of the attention itself, rotary or relative, count the rows
    either way. Source: Lester et al. 2021; deep prompts Jia et al. 2022.
    """

    kinds: ClassVar[frozenset[Kind]] = frozenset({"adapter"})
    primitive: Literal["prompt"] = "prompt"
    input: SiteName
    layer: LayerIndex = 0
    num_tokens: Count
    has_positions: bool

    @property
    def key(self) -> tuple[str, str]:
        """One part per input and layer."""
        return self.primitive, f"{self.input}/{self.layer}"

    def tensor_specs(self, shapes: BackboneShapes) -> tuple[TensorSpec, ...]:
        """The rows; raises for an unknown input or a layer that the stack does not have."""
        place = shapes.input(self.input)
        if self.layer >= place.num_layers:
            raise InvalidArtefactError(
                f"a prompt at layer {self.layer} of {self.input!r}; it has layers 0 to "
                f"{place.num_layers - 1}"
            )
        name = f"{self.input}/prompt/{self.layer}/rows"
        return (TensorSpec(name, (self.num_tokens, place.width)),)
