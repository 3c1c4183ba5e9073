"""Generic injection: a method's factors added to the backbone's linear maps at canonical sites."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from adapters_store.errors import UsageError
from adapters_store.families import Site
from training.context import TaskContext
from training.methods.base import SiteMethod
from training.methods.effects import Effect


def select_sites(sites: Iterable[Site], patterns: Iterable[str]) -> tuple[Site, ...]:
    """The sites whose name or role matches one of the shell patterns; ``all`` takes every one.

    Raises :class:`UsageError` for a pattern that matches nothing, with the roles there are.
    """
    everything = tuple(sites)
    chosen: set[str] = set()
    for pattern in patterns:
        found = {
            site.name
            for site in everything
            if pattern == "all"
            or fnmatchcase(site.name, pattern)
            or fnmatchcase(site.role, pattern)
        }
        if not found:
            roles = sorted({site.role for site in everything})
            raise UsageError(f"site pattern {pattern!r} matches no site; roles here: {roles}")
        chosen |= found
    return tuple(site for site in everything if site.name in chosen)


class AdaptedLinear(nn.Module):
    """A frozen linear map with the effect of each row's task.

    Input is (R, in), (R, S, in) or more leading row-wise dimensions; rows come first.
    """

    def __init__(self, base: nn.Linear | Conv1D, method: SiteMethod, context: TaskContext) -> None:
        super().__init__()
        self.base = base
        self.method = method
        self._context = context
        self._kept: tuple[int, Effect] | None = None

    @property
    def weight(self) -> torch.Tensor:
        """The frozen matrix, as the base keeps it; models read it to learn the compute dtype."""
        weight: torch.Tensor = self.base.weight
        return weight

    def _row_effect(self) -> Effect:
        context = self._context
        if not torch.is_grad_enabled() and self._kept and self._kept[0] == context.version:
            return self._kept[1]
        effect = self.method.effect(context.tasks)
        if context.recorded is not None:
            effect = context.recorded.setdefault(self.method.site.name, effect)
        if len(context.tasks) > 1:
            effect = effect.of_rows(context.rows)
        self._kept = None if torch.is_grad_enabled() else (context.version, effect)
        return effect

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The adapted map."""
        return self._row_effect().apply(x, self.base)


def inject(
    model: nn.Module,
    sites: Iterable[Site],
    methods: Mapping[str, SiteMethod],
    context: TaskContext,
) -> dict[str, AdaptedLinear]:
    """Replace each site's module by an :class:`AdaptedLinear`; returns them by site name.

    ``model`` is a transformers model of any class. Raises :class:`UsageError` when a site's module
    is not a linear map of the stated size.
    """
    adapted: dict[str, AdaptedLinear] = {}
    for site in sites:
        parent, leaf = _place(model, site)
        base = getattr(parent, leaf)
        if not isinstance(base, nn.Linear | Conv1D):
            raise UsageError(
                f"site {site.name} is a {type(base).__name__}; expected a Linear or a Conv1D"
            )
        found = _widths(base)
        if found != (site.in_features, site.out_features):
            raise UsageError(
                f"site {site.name}: expected {site.in_features} -> {site.out_features}, found "
                f"{found[0]} -> {found[1]}"
            )
        wrapped = AdaptedLinear(base, methods[site.name], context)
        setattr(parent, leaf, wrapped)
        adapted[site.name] = wrapped
    return adapted


def eject(model: nn.Module, adapted: Mapping[str, AdaptedLinear]) -> None:
    """Undo :func:`inject`: every site's own linear map returns to its place."""
    for wrapped in adapted.values():
        parent, leaf = _place(model, wrapped.method.site)
        setattr(parent, leaf, wrapped.base)


def _place(model: nn.Module, site: Site) -> tuple[nn.Module, str]:
    """The module that holds the site's, and under which name; paths begin at the base model."""
    parent_path, _, leaf = site.module_path.rpartition(".")
    root: nn.Module = getattr(model, "base_model", model)
    return root.get_submodule(parent_path), leaf


def _widths(base: nn.Linear | Conv1D) -> tuple[int, int]:
    """Input and output width; a Conv1D keeps its matrix (in, out), a Linear (out, in)."""
    rows, columns = base.weight.shape
    return (rows, columns) if isinstance(base, Conv1D) else (columns, rows)
