"""What a layer's queries see of the keys: causality, windows and relative biases, as one mask."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from adapters_store.families.architecture import Stack
from serving.engine.transformer.relative_bias import RelativeBiasTable


class Sight:
    """One way to see; layers that see alike share it, and its masks.

    Where ``is_causal``, a query sees keys up to its own position, ``window`` of them at most.
    """

    def __init__(
        self, *, is_causal: bool, window: int | None, bias: RelativeBiasTable | None
    ) -> None:
        self._is_causal = is_causal
        self.window = window
        self.bias = bias

    def is_plain(self, length: int) -> bool:
        """True where, over that many positions, causality is all there is to it."""
        return self.bias is None and (self.window is None or self.window >= length)

    def mask(
        self,
        queries: Tensor,
        keys: Tensor,
        reach: int,
        dtype: torch.dtype,
        *,
        num_front: Tensor | int = 0,
        bias_queries: Tensor | None = None,
    ) -> Tensor:
        """What is added to scores, (..., heads or 1, Q, K).

        ``queries`` (..., Q) and ``keys`` (K,) are positions, int64; ``reach`` bounds the distance
        between any two. Keys before ``num_front`` (..., 1, 1) are a prefix's, which every window
        sees; ``bias_queries`` are the positions that a relative bias counts from, where others.
        """
        distance = queries.unsqueeze(-1) - keys
        if self.bias is None:
            mask = torch.zeros(distance.shape, dtype=dtype, device=distance.device).unsqueeze(-3)
        else:
            counted = queries if bias_queries is None else bias_queries
            mask = self.bias.between(counted.unsqueeze(-1), keys, reach).movedim(-1, -3)
        if not self._is_causal:
            return mask
        is_hidden = distance < 0
        if self.window is not None:
            is_hidden |= (distance >= self.window) & (keys >= num_front)
        return mask.masked_fill(is_hidden.unsqueeze(-3), float("-inf"))


def length_mask(lengths_n: Tensor, num_keys: int, dtype: torch.dtype) -> Tensor:
    """What is added to scores of rows that see their first ``lengths_n`` keys: (n, 1, 1, K)."""
    keys = torch.arange(num_keys, device=lengths_n.device)
    is_beyond = keys >= lengths_n.unsqueeze(1)
    mask = torch.zeros(is_beyond.shape, dtype=dtype, device=keys.device)
    return mask.masked_fill_(is_beyond, float("-inf"))[:, None, None, :]


def sights(record: Stack, biases: Sequence[RelativeBiasTable]) -> tuple[Sight, ...]:
    """The sight of every layer; ``biases`` has one table a layer, or none."""
    found: dict[tuple[int | None, int], Sight] = {}
    by_layer = []
    for layer in range(record.num_layers):
        bias = biases[layer] if biases else None
        window = record.reach(layer).window
        key = (window, id(bias))
        if key not in found:
            found[key] = Sight(is_causal=record.is_causal, window=window, bias=bias)
        by_layer.append(found[key])
    return tuple(by_layer)
