"""From last hidden states to logits."""

from __future__ import annotations

from torch import Tensor, addmm, mm


class OutputHead:
    """``weight_DV`` (hidden, vocab), an optional ``bias_V``, an optional bound on the logits."""

    def __init__(
        self, weight_DV: Tensor, bias_V: Tensor | None = None, softcap: float | None = None
    ) -> None:
        self._weight = weight_DV
        self._bias = bias_V
        self._softcap = softcap

    def __call__(self, hidden_RD: Tensor) -> Tensor:
        """Logits (R, V), contiguous."""
        if self._bias is None:
            logits = mm(hidden_RD, self._weight)
        else:
            logits = addmm(self._bias, hidden_RD, self._weight)
        if self._softcap is None:
            return logits
        return logits.div_(self._softcap).tanh_().mul_(self._softcap)
