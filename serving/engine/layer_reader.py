"""Encoder inputs read a few layers a step, so that a long one keeps no row waiting.

Attention that looks both ways needs a whole input at once: it cannot be read in parts, as a
decoder's prompt is, but between two layers its states can wait for the next step.
"""

from __future__ import annotations

import torch

from serving.engine.kv_budget import KvBudget
from serving.engine.prefill import Encoded, Pass
from serving.engine.row import Row
from serving.engine.weights import Weights


class LayerReader:
    """Inputs that are being read, oldest first."""

    def __init__(self, weights: Weights, dtype: torch.dtype, budget: KvBudget) -> None:
        self._weights, self._dtype, self._budget = weights, dtype, budget
        self._num_layers = len(weights.reader.layers)
        self._passes: list[Pass] = []
        self._new: Pass | None = None
        self._reserved: dict[Row, int] = {}

    def __contains__(self, row: Row) -> bool:
        return row in self._reserved

    @property
    def num_left(self) -> int:
        """Tokens still to be read: of all layers' work what is left, as tokens of whole inputs.

        Each input counts until it is given out.
        """
        work = [one.num_tokens * one.num_left // self._num_layers for one in self._passes]
        return sum(max(1, num_tokens) for num_tokens in work)

    def reads(self, row: Row) -> bool:
        """Whether the input of ``row`` is being read."""
        return any(row.origin in one for one in self._passes)

    def begin(self, row: Row, reserved_bytes: int) -> int:
        """Take a row whose adapter is ready; it must stay ready until the input is whole.

        ``reserved_bytes`` are kept for its place in the decode batch. Returns how many tokens of
        its input need not be read for it.
        """
        self._budget.hold(reserved_bytes)
        self._reserved[row] = reserved_bytes
        for one in self._passes:
            if row.origin in one:
                one.add(row)
                return row.num_input
        self._new = Pass(self._weights, [row], self._dtype)
        self._passes.append(self._new)
        return 0

    def end(self, row: Row) -> None:
        """Forget a row; nothing is read for nobody."""
        self._budget.let_go(self._reserved.pop(row))
        for one in self._passes:
            if row in one.rows:
                one.remove(row)
        self._passes = [one for one in self._passes if one.rows]

    def step(self, max_tokens: int) -> Encoded | None:
        """Read on at the oldest input, a layer at least; returns one that is whole.

        A layer of the whole input counts as its share of the tokens, of which ``max_tokens`` may
        be read. Making masks for an input and giving it out take as long as a layer, so each has a
        step of its own. The rows of what is given out are forgotten.
        """
        if not self._passes:
            return None
        oldest, new, self._new = self._passes[0], self._new, None
        if oldest is new:
            return None
        if oldest.num_left:
            oldest.run(max(1, self._num_layers * max_tokens // oldest.num_tokens))
            return None
        encoded = oldest.result()
        for row in encoded.rows:
            self.end(row)
        return encoded
