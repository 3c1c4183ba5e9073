"""Training methods: a lazy table from name to the class that acts at one site."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

from adapters_store.errors import UsageError
from adapters_store.families import Site
from adapters_store.lazy import resolve
from training.methods.base import MethodConfig, SiteMethod
from training.methods.hyper import HyperSite
from training.methods.routing import RoutedSite, share_routers

METHODS: dict[str, str] = {
    "lora": "training.methods.lora:LoraSite",
    "poly": "training.methods.mhr:MhrSite",
    "mhr": "training.methods.mhr:MhrSite",
    "ia3": "training.methods.ia3:Ia3Site",
    "poly_ia3": "training.methods.ia3:MhrIa3Site",
    "mhr_ia3": "training.methods.ia3:MhrIa3Site",
    "hyper": "training.methods.hyper:HyperSite",
}
ONE_HEAD = frozenset({"poly", "poly_ia3"})
_ROUTED = frozenset({"poly", "mhr", "poly_ia3", "mhr_ia3"})
OPTIONS: dict[str, frozenset[str]] = {
    "gate": _ROUTED,
    "granularity": _ROUTED,
    "has_random_routing": _ROUTED,
    "is_private": frozenset({"lora", "ia3"}),
    "embedding_size": frozenset({"hyper"}),
    "side": frozenset({"ia3", "poly_ia3", "mhr_ia3"}),
}
"""The methods on which a choice of :class:`MethodConfig` has an effect; sizes go unchecked."""


def build_site_method(site: Site, config: MethodConfig) -> SiteMethod:
    """The method named in ``config`` at one site; raises UsageError for an unknown name."""
    if config.name in ONE_HEAD:
        config = dataclasses.replace(config, num_heads=1)
    method: SiteMethod = resolve(METHODS, config.name, "training method")(site, config)
    return method


def check_options(config: MethodConfig) -> None:
    """Raise UsageError where a choice other than the default has no effect on the method."""
    for field in dataclasses.fields(config):
        value, takers = getattr(config, field.name), OPTIONS.get(field.name)
        if takers and value != field.default and config.name not in takers:
            raise UsageError(
                f"method {config.name!r} takes no {field.name}, found {value!r}",
                hint=f"Methods that do: {', '.join(sorted(takers))}.",
            )


def build_methods(sites: Iterable[Site], config: MethodConfig) -> dict[str, SiteMethod]:
    """The method at every site, by name, with what sites share: routers, task embeddings.

    Raises UsageError for a choice that has no effect on the method.
    """
    built = {site.name: build_site_method(site, config) for site in sites}
    check_options(config)
    routed = [(m.site, m) for m in built.values() if isinstance(m, RoutedSite)]
    share_routers(routed, config.granularity)
    generated = [method for method in built.values() if isinstance(method, HyperSite)]
    for method in generated:
        method.task = generated[0].task
    return built


__all__ = ["METHODS", "MethodConfig", "SiteMethod", "build_methods", "build_site_method"]
