"""A library of adapters as one bank: averages, learned averages, and routing token by token.

A plain LoRA is a skill: its factors become one entry of a bank with a single head. Every way of
mixing then falls out of what banks already do: uniform routing is the library's average, a routing
learnt over it averages factors, a soup averages updates (LoRA Soups, Prabhakar et al. 2024), and
Arrow chooses skills for each token by prototypes that need no data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from adapters_store.artefact import Artefact, build_artefact
from adapters_store.backbone import Backbone
from adapters_store.errors import IncompatibleError, UsageError
from adapters_store.families import Site
from adapters_store.ledger.ancestry import LINEAGE_KEY
from adapters_store.ledger.lineage import MAX_PARENTS, Lineage
from adapters_store.manifest import BankPart, LowRankPart, RoutingPart, TaskSignature
from training.methods.base import SiteMethod
from training.methods.effects import TokenMixture
from training.model import AdaptedModel
from training.restore import Pairs, check_parts, read_bank, read_pairs

DEFAULT_TOP_K = 4


def library_bank(
    adapters: Sequence[Artefact],
    backbone: Backbone,
    provenance: Mapping[str, Any] | None = None,
) -> Artefact:
    """The bank whose skill k is adapter k: ``low_rank`` adapters of one backbone and its sites.

    Ranks may differ: lower ones are filled up with zeros, which changes nothing. Scales are folded
    into ``b``. Raises UsageError for no adapter or one with other than ``low_rank`` parts (a head
    is left out), IncompatibleError where backbones or sites differ.
    """
    if not adapters:
        raise UsageError("a library holds at least one adapter; none was given")
    pairs = [_checked(adapter, backbone) for adapter in adapters]
    sites = list(pairs[0])
    for number, found in enumerate(pairs):
        if set(found) != set(sites):
            raise IncompatibleError(
                f"adapter {number} has sites {sorted(set(found) ^ set(sites))[:3]} where adapter 0 "
                "does not, or the reverse; a library shares its sites"
            )
    parts, tensors = [], {}
    for site in sites:
        rank = max(found[site][0].shape[-1] for found in pairs)
        a = torch.stack([_widened(found[site][0], rank, -1) for found in pairs])
        b = torch.stack([_widened(found[site][1] * found[site][2], rank, 0) for found in pairs])
        parts.append(BankPart(site=site, rank=rank, num_skills=len(pairs), num_heads=1, scale=1.0))
        tensors[f"{site}/mixture/a"], tensors[f"{site}/mixture/b"] = a[None], b[None]
    digests = [adapter.digest for adapter in adapters]
    about: dict[str, Any] = {"library": digests}
    if len(distinct := dict.fromkeys(digests)) <= MAX_PARENTS:
        about[LINEAGE_KEY] = Lineage(parents=tuple(distinct)).model_dump(
            mode="json", exclude_none=True
        )
    return build_artefact(
        kind="bank",
        backbone=backbone,
        parts=parts,
        tensors=tensors,
        provenance={**(provenance or {}), **about},
    )


def average_routing(bank: Artefact, backbone: Backbone, about: TaskSignature) -> Artefact:
    """The routing that mixes all of a bank's skills in equal parts."""
    parts = bank.manifest.bank_parts
    heads, skills = parts[0].num_heads, parts[0].num_skills
    weights = torch.full((len(parts), heads, skills), 1.0 / skills)
    part = RoutingPart(sites=tuple(one.site for one in parts), num_skills=skills, num_heads=heads)
    return build_artefact(
        kind="routing",
        backbone=backbone,
        parts=[part],
        tensors={"routing/weights": weights, "routing/logits": torch.zeros_like(weights)},
        signature=about,
        bank=bank.digest,
        provenance={"method": "average"},
    )


def prototypes(a_KDr: torch.Tensor, b_KrO: torch.Tensor) -> torch.Tensor:
    """Unit vectors (K, D): the input direction that each skill's ``a b`` stretches most.

    The top right singular vector of the update, through a QR of each factor. Source: Arrow,
    Ostapenko et al. 2024, section 4.2.
    """
    found = []
    for a_Dr, b_rO in zip(a_KDr, b_KrO, strict=True):
        q_Dr, inner = torch.linalg.qr(a_Dr)
        u_rr, _, _ = torch.linalg.svd(inner @ b_rO, full_matrices=False)
        found.append(q_Dr @ u_rr[:, 0])
    return torch.stack(found)


class ArrowSite(SiteMethod):
    """A library's skills ``a`` (K, in, r), ``b`` (K, r, out), chosen by every token itself."""

    def __init__(
        self, site: Site, a: torch.Tensor, b: torch.Tensor, scale: float, top_k: int
    ) -> None:
        super().__init__(site)
        self.mixture = TokenMixture(a, b, prototypes(a, b), top_k, scale)

    def effect(self, tasks: torch.Tensor) -> TokenMixture:
        """The same for all tasks: nothing is learnt."""
        return self.mixture


def arrow_model(
    model: Any, backbone: Backbone, bank: Artefact, top_k: int = DEFAULT_TOP_K
) -> AdaptedModel:
    """``model`` with the library routed token by token, without training; evaluation only.

    Raises UsageError for a bank of several heads, whose skills are not whole adapters.
    """
    methods: dict[str, SiteMethod] = {}
    for name, (a_HKDr, b_HKrO, scale) in read_bank(bank).items():
        if a_HKDr.shape[0] != 1:
            raise UsageError(f"Arrow routes whole adapters; the bank has {a_HKDr.shape[0]} heads")
        methods[name] = ArrowSite(backbone.sites[name], a_HKDr[0], b_HKrO[0], scale, top_k)
    sites = [backbone.sites[name] for name in methods]
    return AdaptedModel(model, sites, methods).eval()


def _checked(adapter: Artefact, backbone: Backbone) -> Pairs:
    if adapter.manifest.backbone != backbone.fingerprint:
        raise IncompatibleError(
            f"an adapter of the library is for backbone {adapter.manifest.backbone}; "
            f"expected {backbone.fingerprint}"
        )
    found = read_pairs(adapter)
    check_parts(adapter, LowRankPart, "a library")
    if not found:
        raise UsageError("an adapter of the library has no low_rank parts to make a skill of")
    return found


def _widened(factor: torch.Tensor, rank: int, axis: int) -> torch.Tensor:
    missing = rank - factor.shape[axis]
    if not missing:
        return factor
    shape = list(factor.shape)
    shape[axis] = missing
    return torch.cat([factor, factor.new_zeros(shape)], axis)
