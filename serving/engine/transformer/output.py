"""From last hidden states to logits."""

from __future__ import annotations

from torch import Tensor

from serving.engine.transformer.product import frozen_product


class OutputHead:
    """``weight_DV`` (hidden, vocab), an optional ``bias_V``, an optional bound on the logits."""

    def __init__(
        self, weight_DV: Tensor, bias_V: Tensor | None = None, softcap: float | None = None
    ) -> None:
        self._product = frozen_product(weight_DV, bias_V)
        self._softcap = softcap

    def __call__(self, hidden_RD: Tensor) -> Tensor:
        """Logits (R, V), contiguous."""
        logits = self._product(hidden_RD)
        if self._softcap is None:
            return logits
        return logits.div_(self._softcap).tanh_().mul_(self._softcap)
