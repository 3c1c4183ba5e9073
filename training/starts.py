"""Where adaptation starts: the methods of each mode, fresh or from a bank or an adapter."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch

from adapters_store.artefact import Artefact
from adapters_store.backbone import Backbone
from adapters_store.errors import UsageError
from adapters_store.families import Site
from adapters_store.lazy import resolve
from adapters_store.ledger.lineage import lineage_of
from adapters_store.primitives.low_rank import LowRankPart
from adapters_store.primitives.scale import ScalePart
from training.inits import Init
from training.injection import select_sites
from training.methods import MethodConfig, SiteMethod, build_methods, build_site_method
from training.methods.effects import Side
from training.methods.mhr import MhrSite, average
from training.methods.routing import GATES, Granularity, share_routers
from training.methods.soup import SoupSite
from training.restore import check_parts, read_bank, read_pairs, read_vectors

Mode = Literal["z", "mu", "full", "soup", "lora", "ia3"]
ROUTED: frozenset[Mode] = frozenset({"z", "full"})
"""The modes that learn a routing."""


def start(
    backbone: Backbone,
    mode: Mode,
    source: Artefact | None,
    patterns: Sequence[str],
    rank: int,
    *,
    gate: str = "sigmoid",
    granularity: Granularity | None = None,
) -> dict[str, SiteMethod]:
    """The methods that ``mode`` trains, by site.

    ``source`` is a bank, or for ``lora`` and ``ia3`` an adapter to tune further; without one they
    are fresh at the sites of ``patterns``. A routing is learnt under ``gate``, whatever routed the
    bank before, and shared between sites by ``granularity``, None as in the bank's own training;
    a head is always learnt anew. Raises :class:`UsageError` for a missing or wrong source.
    """
    if mode in ("lora", "ia3"):
        return _adapter(backbone, mode, source, patterns, rank)
    if source is None:
        raise UsageError(f"mode {mode!r} adapts a bank: give one", hint="Or use mode `lora`.")
    bank, sites = read_bank(source), backbone.sites
    if mode == "mu":
        return {
            name: _lora(sites[name], *average(a, b), scale) for name, (a, b, scale) in bank.items()
        }
    if mode == "soup":
        return {name: _soup(sites[name], *factors) for name, factors in bank.items()}
    methods = {
        name: _routed(sites[name], *factors, gate, is_bank_frozen=mode == "z")
        for name, factors in bank.items()
    }
    share_routers(
        [(method.site, method) for method in methods.values()],
        granularity or trained_granularity(source),
    )
    return dict(methods)


def checked_init(mode: Mode, init: Init, gate: str, granularity: Granularity | None) -> Init:
    """How the mode's routing starts; raises :class:`UsageError` where a choice has no effect.

    Seen tasks' logits are those of the sigmoid gate, and say nothing under another one.
    """
    if mode not in ROUTED:
        if init not in ("auto", "uniform"):
            raise UsageError(f"mode {mode!r} learns no routing that init could start")
        if gate != "sigmoid" or granularity is not None:
            raise UsageError(f"mode {mode!r} learns no routing for gate and granularity")
    resolve(GATES, gate, "routing gate")
    if gate in ("sigmoid", "relaxed_bernoulli") or init == "uniform":
        return init
    if init != "auto":
        raise UsageError(f"init {init!r} starts from logits of the sigmoid gate, not of {gate!r}")
    return "uniform"


def parents(source: Artefact, mode: Mode) -> list[str]:
    """What an artefact learnt in ``mode`` was made from: the source, or for a soup its adapters."""
    provenance = source.manifest.provenance
    stated = lineage_of(provenance) if mode == "soup" and "library" in provenance else None
    return list(stated.parents) if stated and stated.parents else [source.digest]


def trained_granularity(bank: Artefact) -> Granularity:
    """Which sites shared a router when the bank was trained; ``site`` where it does not say."""
    method = bank.manifest.provenance.get("method")
    stated = method.get("granularity") if isinstance(method, dict) else None
    known: tuple[Granularity, ...] = get_args(Granularity)
    return next((one for one in known if one == stated), "site")


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


def _soup(site: Site, a: torch.Tensor, b: torch.Tensor, scale: float) -> SiteMethod:
    if len(a) != 1:
        raise UsageError(
            f"mode 'soup' averages whole adapters; the bank has {len(a)} heads",
            hint="Use mode `z`, which mixes a bank's skills head by head.",
        )
    return SoupSite(site, a[0], b[0], scale)


def _routed(
    site: Site, a: torch.Tensor, b: torch.Tensor, scale: float, gate: str, *, is_bank_frozen: bool
) -> MhrSite:
    heads, skills, _, rank = a.shape
    method = MhrSite(
        site,
        MethodConfig(
            "mhr",
            rank=rank,
            alpha=scale * rank,
            num_skills=skills,
            num_heads=heads,
            gate=gate,
        ),
    )
    method.load_state_dict(method.state_dict() | {"a": a, "b": b})
    for name in ("a", "b"):
        method.get_parameter(name).requires_grad_(not is_bank_frozen)
    return method
