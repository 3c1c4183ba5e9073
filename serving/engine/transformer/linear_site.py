"""One frozen linear map: the product, and what each row's adapter makes of it.

Shapes: ``T`` tokens (or rows), ``D`` input width, ``E`` output width.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from serving.engine.transformer.product import frozen_product
from serving.primitives.layout import PackedSite
from serving.primitives.plan import Plan


class LinearSite:
    """``y = x W (+ bias)`` with the rows' effects; ``weight`` is (D, E).

    The columns belong to ``sites`` in order: one packed site, or several of unequal widths that
    read the same input (queries beside fewer keys and values).
    """

    def __init__(
        self, sites: Sequence[PackedSite], weight_DE: Tensor, bias_E: Tensor | None
    ) -> None:
        self.sites = tuple(sites)
        self._product = frozen_product(weight_DE, bias_E)
        self._columns: list[tuple[int, slice]] = []
        start = 0
        for site in self.sites:
            self._columns.append((site.index, slice(start, start + site.width)))
            start += site.width

    def __call__(self, x_TD: Tensor, plan: Plan[Any] | None) -> Tensor:
        """Return (T, E), a tensor of its own; ``x_TD`` is left unchanged."""
        if plan is None:
            return self._product(x_TD)
        if len(self._columns) == 1:
            index = self._columns[0][0]
            y = self._product(plan.scaled(index, x_TD))
            plan.apply(index, x_TD, y, self._product.unbiased)
            return y
        y = self._product(x_TD)
        for index, columns in self._columns:
            plan.apply(index, x_TD, y[:, columns], partial(self._some, columns))
        return y

    def _some(self, columns: slice, x_TD: Tensor) -> Tensor:
        return self._product.unbiased(x_TD)[:, columns]
