"""One packed linear site: the frozen product, then what each row's adapter adds.

Shapes: ``T`` tokens (or rows), ``D`` input width, ``E`` packed output width.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, addmm, mm

from serving.primitives.layout import PackedSite


class Plan(Protocol):
    """What the adapters of a step do at the linear sites; built once per batch composition."""

    def apply(self, index: int, x_TD: Tensor, y_TE: Tensor) -> None:
        """Add the rows' effects at packed site ``index`` to ``y_TE`` in place."""


class LinearSite:
    """``y = x W (+ bias) (+ residual) + effects``; ``weight`` is (D, E), contiguous."""

    def __init__(self, site: PackedSite, weight_DE: Tensor, bias_E: Tensor | None) -> None:
        self.site = site
        self._weight = weight_DE
        self._bias = bias_E

    def __call__(self, x_TD: Tensor, plan: Plan | None, residual: Tensor | None = None) -> Tensor:
        """Return (T, E); ``residual`` (T, E) is added, and is left unchanged."""
        if residual is None:
            y = mm(x_TD, self._weight) if self._bias is None else self._biased(x_TD)
        else:
            y = addmm(residual, x_TD, self._weight)
            if self._bias is not None:
                y += self._bias
        if plan is not None:
            plan.apply(self.site.index, x_TD, y)
        return y

    def _biased(self, x_TD: Tensor) -> Tensor:
        assert self._bias is not None
        return addmm(self._bias, x_TD, self._weight)
