"""The rows of prefixes in front of a slab's keys, and the masks that see them.

All rows of a slab have their own number of columns in front; a layer that has fewer than its row's
most keeps them next to the row's own keys and hides the rest.

Shapes: ``n`` rows of a slab, ``C`` cached columns.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from serving.engine.offsets import Offsets
from serving.engine.transformer.sight import Sight, length_mask
from serving.primitives.prefix import Front
from serving.upload import upload


class Fronts:
    """What stands before the keys of a slab's rows, layer by layer.

    ``num_front`` (n,) are the columns in front of each row's own keys. Layers of one pattern hide
    the same columns and count distances alike.
    """

    def __init__(self, rows: Sequence[Offsets], num_layers: int, device: torch.device) -> None:
        self.num_front = upload([row.num_front for row in rows], device)
        self._hidden: list[Tensor | None] = []
        self._back: list[Tensor | None] = []
        numbers: dict[tuple[Front, ...], int] = {}
        self._by_layer: list[int] = []
        for layer in range(num_layers):
            fronts = tuple(row.front(layer) for row in rows)
            if fronts not in numbers:
                numbers[fronts] = len(numbers)
                hidden = [row.num_front - own.num_rows for row, own in zip(rows, fronts)]
                back = [0 if own.is_shifted else own.num_rows for own in fronts]
                for found, values in ((self._hidden, hidden), (self._back, back)):
                    found.append(upload(values, device) if any(values) else None)
            self._by_layer.append(numbers[fronts])

    def masks(
        self, sights: Sequence[Sight], indices_n: Tensor, length: int, dtype: torch.dtype
    ) -> list[Tensor]:
        """The self-attention mask of every layer; rows query from the indices (n,)."""
        keys = torch.arange(length, device=indices_n.device)
        queries = (indices_n + self.num_front).unsqueeze(1)
        made: dict[tuple[Sight, int], Tensor] = {}
        for sight, pattern in dict.fromkeys(zip(sights, self._by_layer, strict=True)):
            back = self._back[pattern]
            mask = sight.mask(
                queries,
                keys,
                length,
                dtype,
                num_front=self.num_front[:, None, None],
                bias_queries=None if back is None else queries - back.unsqueeze(1),
            )
            made[sight, pattern] = self._hide(mask, pattern, keys)
        return [made[key] for key in zip(sights, self._by_layer, strict=True)]

    def cross_masks(self, lengths_n: Tensor, length: int, dtype: torch.dtype) -> list[Tensor]:
        """The cross-attention mask of every layer; rows have that many keys of their own."""
        keys = torch.arange(length, device=lengths_n.device)
        mask = length_mask(lengths_n + self.num_front, length, dtype)
        made = [self._hide(mask, pattern, keys) for pattern in range(len(self._hidden))]
        return [made[pattern] for pattern in self._by_layer]

    def _hide(self, mask: Tensor, pattern: int, keys: Tensor) -> Tensor:
        hidden = self._hidden[pattern]
        if hidden is None:
            return mask
        is_hidden = keys < hidden.unsqueeze(1)
        return mask.masked_fill(is_hidden[:, None, None, :], float("-inf"))


def fronts_of(rows: Sequence[Offsets], num_layers: int, device: torch.device) -> Fronts | None:
    """The fronts of a slab's rows; None where no row has any."""
    if not any(row.num_front for row in rows):
        return None
    return Fronts(rows, num_layers, device)
