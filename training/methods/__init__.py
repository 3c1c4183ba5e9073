"""Training methods: a lazy table from name to the class that acts at one site."""

from __future__ import annotations

from adapters_store.families import Site
from adapters_store.lazy import resolve
from training.methods.base import MethodConfig, SiteMethod

METHODS: dict[str, str] = {
    "lora": "training.methods.lora:LoraSite",
    "poly": "training.methods.mhr:MhrSite",
    "mhr": "training.methods.mhr:MhrSite",
}


def build_site_method(site: Site, config: MethodConfig) -> SiteMethod:
    """The method named in ``config`` at one site; raises UsageError for an unknown name."""
    method: SiteMethod = resolve(METHODS, config.name, "training method")(site, config)
    return method


__all__ = ["METHODS", "MethodConfig", "SiteMethod", "build_site_method"]
