"""Where adaptation starts: the methods of each mode, fresh or from a bank or an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from adapters_store.artefact import Artefact
from adapters_store.backbone import Backbone
from adapters_store.errors import UsageError
from adapters_store.families import Site
from adapters_store.primitives.low_rank import LowRankPart
from adapters_store.primitives.scale import ScalePart
from training.injection import select_sites
from training.methods import MethodConfig, SiteMethod, build_methods, build_site_method
from training.methods.effects import Side
from training.methods.mhr import average
from training.restore import check_parts, read_bank, read_pairs, read_vectors

Mode = Literal["z", "mu", "full", "lora", "ia3"]


def start(
    backbone: Backbone, mode: Mode, source: Artefact | None, patterns: Sequence[str], rank: int
) -> dict[str, SiteMethod]:
    """The methods that ``mode`` trains, by site.

    ``source`` is a bank, or for ``lora`` and ``ia3`` an adapter to tune further; without one they
    are fresh at the sites of ``patterns``. A routing is learnt per site under the sigmoid gate,
    whatever routed the bank before; a head is always learnt anew. Raises :class:`UsageError` for a
    missing or wrong source.
    """
    if mode in ("lora", "ia3"):
        return _adapter(backbone, mode, source, patterns, rank)
    if source is None:
        raise UsageError(f"mode {mode!r} adapts a bank: give one", hint="Or use mode `lora`.")
    bank = read_bank(source)
    if mode == "mu":
        return {
            name: _lora(backbone.sites[name], *average(a, b), scale)
            for name, (a, b, scale) in bank.items()
        }
    return {
        name: _routed(backbone.sites[name], *factors, is_bank_frozen=mode == "z")
        for name, factors in bank.items()
    }


def _adapter(
    backbone: Backbone, mode: Mode, source: Artefact | None, patterns: Sequence[str], rank: int
) -> dict[str, SiteMethod]:
    if source is None:
        return build_methods(
            select_sites(backbone.sites.values(), patterns), MethodConfig(mode, rank=rank)
        )
    found = (
        {name: _lora(backbone.sites[name], *pair) for name, pair in read_pairs(source).items()}
        if mode == "lora"
        else {name: _ia3(backbone.sites[name], *v) for name, v in read_vectors(source).items()}
    )
    if not found:
        raise UsageError(f"the adapter has nothing that mode {mode!r} could tune further")
    check_parts(source, LowRankPart if mode == "lora" else ScalePart, f"mode {mode!r}")
    return found


def _ia3(site: Site, vector: torch.Tensor, side: Side) -> SiteMethod:
    method = build_site_method(site, MethodConfig("ia3", side=side))
    method.load_state_dict({"v": vector[None]})
    return method


def _lora(site: Site, a: torch.Tensor, b: torch.Tensor, scale: float) -> SiteMethod:
    rank = a.shape[-1]
    method = build_site_method(site, MethodConfig("lora", rank=rank, alpha=scale * rank))
    method.load_state_dict({"a": a[None], "b": b[None]})
    return method


def _routed(
    site: Site, a: torch.Tensor, b: torch.Tensor, scale: float, *, is_bank_frozen: bool
) -> SiteMethod:
    heads, skills, _, rank = a.shape
    config = MethodConfig("mhr", rank=rank, alpha=scale * rank, num_skills=skills, num_heads=heads)
    method = build_site_method(site, config)
    method.load_state_dict(method.state_dict() | {"a": a, "b": b})
    for name in ("a", "b"):
        method.get_parameter(name).requires_grad_(not is_bank_frozen)
    return method
