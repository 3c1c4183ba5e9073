"""RMS and layer normalisation by record."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.nn.functional import layer_norm, rms_norm

from adapters_store.families.architecture import Norm
from serving.primitives.plan import Plan


class Normalisation:
    """``rms`` (gain) or ``layer`` (gain and bias) over the last dimension.

    ``name`` is canonical, such as ``decoder.0.ffn.norm``. ``gain_D`` is the gain as the checkpoint
    stores it; the record's offset is added here.
    """

    def __init__(self, name: str, record: Norm, gain_D: Tensor, bias_D: Tensor | None) -> None:
        self.name = name
        self._offset = record.gain_offset
        self._gain = (gain_D.float() + record.gain_offset).to(gain_D.dtype)
        self._bias = bias_D
        self._eps = record.eps
        self._is_rms = record.kind == "rms"

    def __call__(self, x: Tensor, plan: Plan[Any] | None = None) -> Tensor:
        """Normalise each token; (..., D) to (..., D). Rows of the plan use their own vectors."""
        shape = self._gain.shape
        if self._is_rms:
            y = rms_norm(x, shape, self._gain, self._eps)
        else:
            y = layer_norm(x, shape, self._gain, self._bias, self._eps)
        if plan is not None:
            plan.renorm(self, x, y)
        return y

    def own(self, x: Tensor, gain: Tensor, bias: Tensor | None = None) -> Tensor:
        """Rows (n, ..., D) normed by vectors of their own (n or 1, D), as the model stores them."""
        spread = (gain.shape[0], *[1] * (x.dim() - 2), gain.shape[1])
        gain = (gain + self._offset).view(spread)
        if self._is_rms:
            return rms_norm(x, self._gain.shape, None, self._eps) * gain
        y = layer_norm(x, self._gain.shape, None, None, self._eps) * gain
        return y if bias is None else y + bias.view(spread)
