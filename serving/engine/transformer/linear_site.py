"""One packed linear site: the frozen product, and what each row's adapter makes of it.

Shapes: ``T`` tokens (or rows), ``D`` input width, ``E`` packed output width.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, addmm, mm

from serving.primitives.layout import PackedSite
from serving.primitives.plan import Plan


class LinearSite:
    """``y = x W (+ bias)`` with the rows' effects; ``weight`` is (D, E), contiguous."""

    def __init__(self, site: PackedSite, weight_DE: Tensor, bias_E: Tensor | None) -> None:
        self.site = site
        self._weight = weight_DE
        self._bias = bias_E

    def __call__(self, x_TD: Tensor, plan: Plan[Any] | None) -> Tensor:
        """Return (T, E), a tensor of its own; ``x_TD`` is left unchanged."""
        if plan is None:
            return self._product(x_TD)
        index = self.site.index
        y = self._product(plan.scaled(index, x_TD))
        plan.apply(index, x_TD, y, self._weight)
        return y

    def _product(self, x_TD: Tensor) -> Tensor:
        if self._bias is None:
            return mm(x_TD, self._weight)
        return addmm(self._bias, x_TD, self._weight)
