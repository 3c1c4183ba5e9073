"""RMS and layer normalisation by record."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import layer_norm, rms_norm

from adapters_store.families.architecture import Norm


class Normalisation:
    """``rms`` (gain) or ``layer`` (gain and bias) over the last dimension."""

    def __init__(self, record: Norm, gain_D: Tensor, bias_D: Tensor | None) -> None:
        self._gain = gain_D
        self._bias = bias_D
        self._eps = record.eps
        self._is_rms = record.kind == "rms"

    def __call__(self, x_TD: Tensor) -> Tensor:
        """Normalise each token; (T, D) to (T, D)."""
        shape = self._gain.shape
        if self._is_rms:
            return rms_norm(x_TD, shape, self._gain, self._eps)
        return layer_norm(x_TD, shape, self._gain, self._bias, self._eps)
