"""``prompt``: rows before the tokens of a stack's input, and at later layers in their place.

The rows take part in the pass that reads a row's input, like tokens; afterwards they are keys and
values in the cache. Rows of layer 0 with positions replace what the token table gave, those without
replace the whole embedding, and those of a later layer what the layers before made of them.
:func:`reference` is the formula for one row.

Shapes: ``P`` prompt rows, ``T`` tokens, ``D`` width of the stream.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from adapters_store.errors import InvalidArtefactError
from serving.primitives.prepared import Prepared, Target

EMBEDDING = -1
"""The place of rows that are embedded like tokens, before layer 0."""


@dataclass(frozen=True, slots=True)
class Prompt:
    """A stack's rows (P, D) by the place that they enter: :data:`EMBEDDING` or a layer.

    With ``has_positions`` the tokens follow at position P, else they begin at 0.
    """

    num_rows: int
    has_positions: bool
    rows: Mapping[int, Tensor]

    @property
    def num_bytes(self) -> int:
        """Bytes of all rows."""
        return sum(rows.nbytes for rows in self.rows.values())


def prepare(parts: Sequence[Any], tensors: Mapping[str, Tensor], target: Target) -> Prepared:
    """Every ``PromptPart`` by its stack.

    Raises InvalidArtefactError for rows of a later layer that replace none, or not as many.
    """
    prompts: dict[str, Prompt] = {}
    for name in dict.fromkeys(part.input for part in parts):
        own = {part.layer: part for part in parts if part.input == name}
        first = own.get(0)
        rows: dict[int, Tensor] = {}
        for layer, part in sorted(own.items()):
            if first is None or part.num_tokens != first.num_tokens:
                before = 0 if first is None else first.num_tokens
                raise InvalidArtefactError(
                    f"the prompt at layer {layer} of {name!r} has {part.num_tokens} rows; at "
                    f"layer 0 it has {before}"
                )
            value = tensors[f"{name}/prompt/{layer}/rows"].to(target.device, target.dtype)
            place = EMBEDDING if layer == 0 and part.has_positions else layer
            rows[place] = value.contiguous()
        assert first is not None
        prompts[name] = Prompt(first.num_tokens, first.has_positions, rows)
    return Prepared(prompts=prompts)


def reference(x_TD: Tensor, rows_PD: Tensor, *, replaces: bool) -> Tensor:
    """One row's stream with the rows in front (P + T, D): put in, or in place of those there."""
    return torch.cat([rows_PD, x_TD[rows_PD.shape[0] :] if replaces else x_TD])
