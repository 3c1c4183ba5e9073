"""Where adaptation starts: the methods of each mode, and the first routing over a bank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from adapters_store.artefact import Artefact
from adapters_store.backbone import Backbone
from adapters_store.errors import UsageError
from adapters_store.families import Site
from training.compile import bank_sites
from training.injection import select_sites
from training.methods import MethodConfig, SiteMethod, build_methods, build_site_method
from training.methods.effects import Side
from training.methods.mhr import average
from training.model import AdaptedModel
from training.objectives.base import Objective
from training.restore import read_bank, read_logits, read_pairs, read_vectors
from training.task import Task

Mode = Literal["z", "mu", "full", "lora", "ia3"]
Init = Literal["auto", "uniform", "nearest", "blend"]

NUM_SCORED = 4
_BLEND_TEMPERATURE = 0.1


def start(
    backbone: Backbone, mode: Mode, source: Artefact | None, patterns: Sequence[str], rank: int
) -> dict[str, SiteMethod]:
    """The methods that ``mode`` trains, by site.

    ``source`` is a bank, or for ``lora`` and ``ia3`` an adapter to tune further; without one they
    are fresh at the sites of ``patterns``. Raises :class:`UsageError` for a missing or wrong
    source.
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


@torch.no_grad()
def choose_routing(
    model: AdaptedModel,
    objective: Objective,
    task: Task,
    init: Init,
    bank: Artefact,
    neighbours: Sequence[Artefact],
) -> None:
    """Set task 0's logits: ``uniform`` keeps the draw around zero, as the paper does.

    ``nearest`` copies the neighbour under which a few training examples have the least loss;
    ``blend`` averages the neighbours' logits with softmax(-loss / 0.1) as weights. ``auto`` is
    ``blend`` where there are neighbours whose losses can be compared, else ``uniform``.
    """
    if init == "uniform" or (init == "auto" and (model.heads or not neighbours)):
        return
    if not neighbours:
        raise UsageError(f"init {init!r} needs the routings of seen tasks; none is given")
    if model.heads:
        raise UsageError(f"init {init!r} compares losses, which a fresh head does not have")
    batch = objective.collate([(0, example) for example in task.train[:NUM_SCORED]])
    candidates = torch.stack([read_logits(artefact, bank) for artefact in neighbours])
    losses = []
    for logits in candidates:
        _set_logits(model, logits)
        losses.append(objective.loss(model, batch))
    scores = torch.stack(losses)
    if init == "nearest":
        _set_logits(model, candidates[scores.argmin()])
        return
    shares = torch.softmax(-scores / _BLEND_TEMPERATURE, 0)
    _set_logits(model, torch.einsum("n,nshk->shk", shares, candidates))


def _set_logits(model: AdaptedModel, logits_SHK: torch.Tensor) -> None:
    for method, logits in zip(bank_sites(model).values(), logits_SHK, strict=True):
        method.logits[0] = logits
