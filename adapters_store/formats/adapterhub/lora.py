"""LoRA and IA3 of ``adapters`` as ``low_rank`` and ``scale`` parts.

The library's IA3 multiplies a linear map's output, bias included, wherever it stands. GPT-2 packs
queries, keys and values into one map; its factors are block-diagonal over those that are adapted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from adapters_store.families.site import Site
from adapters_store.formats.adapterhub.draft import Draft, short
from adapters_store.formats.adapterhub.layout import Layout, sites
from adapters_store.formats.adapterhub.member import Member
from adapters_store.formats.adapterhub.recipe import Recipe, transposed
from adapters_store.primitives.low_rank import LowRankPart
from adapters_store.primitives.scale import ScalePart

if TYPE_CHECKING:
    import torch

PACKED = ("q", "k", "v")


def plan_lora(member: Member, draft: Draft) -> None:
    """Add a part for every linear site that the options name."""
    options = member.options
    if options["composition_mode"] == "scale" and options["r"] != 1:
        message = f"r is {options['r']} beside composition_mode 'scale'; expected 1"
        draft.abandon("unreadable", message, f"{draft.scope}.r")
        return
    if options["r"] < 1:
        draft.abandon("unreadable", f"r is {options['r']}; expected 1 or more", f"{draft.scope}.r")
        return
    for place in sites(member.layout, draft.shapes):
        site = draft.shapes.site(place.name)
        matrix = site.role.partition(".")[2]
        if not options[place.key] or member.leaves_out(place.layer):
            continue
        if matrix == "qkv":
            chosen = tuple(letter in options["attn_matrices"] for letter in PACKED)
        elif place.kind != "ffn" and matrix not in options["attn_matrices"]:
            continue
        else:
            chosen = (True,)
        if any(chosen):
            _plan_site(member, site, chosen, draft)
    inert = set(map(str, options["attn_matrices"])) - set(PACKED)
    if inert and options["selfattn_lora"]:
        message = f"attn_matrices names {short(sorted(inert))}, where `adapters` puts nothing"
        draft.note("unmatched_target", message, f"{draft.scope}.attn_matrices")


def _plan_site(member: Member, site: Site, chosen: tuple[bool, ...], draft: Draft) -> None:
    """One site; ``chosen`` says which equal slices of its output are adapted."""
    options, stem = member.options, f"{site.module_path}.loras.{member.name}"
    num_chosen, width = sum(chosen), site.out_features // len(chosen)
    if options["composition_mode"] == "scale":
        vector = draft.take(f"{stem}.lora_B", (width * num_chosen, 1))
        part = ScalePart(site=site.name, side="output")
        alpha = member.alpha
        draft.add(part, [Recipe((vector,), lambda found: _spread(found[0], chosen, alpha))])
        return
    rank = options["r"]
    found = draft.shape(f"{stem}.lora_A")[:1]
    if found and found[0] != rank * num_chosen:
        message = f"{stem}.lora_A has {found[0]} rows; r {rank} gives {rank * num_chosen}"
        draft.abandon("rank_mismatch", message, f"{draft.scope}.r")
        return
    a = draft.take(f"{stem}.lora_A", (rank * num_chosen, site.in_features))
    b = draft.take(f"{stem}.lora_B", (width * num_chosen, rank))
    low_rank = LowRankPart(site=site.name, rank=rank * num_chosen, scale=member.alpha / rank)
    draft.add(low_rank, [transposed(a), Recipe((b,), lambda found: _block_diagonal(found, chosen))])


def _spread(vector: torch.Tensor, chosen: tuple[bool, ...], alpha: float) -> torch.Tensor:
    """The factors of a whole output: ones where a slice is not adapted, all times ``alpha``."""
    import torch

    slices = list(vector.flatten().chunk(sum(chosen)))
    ones = torch.ones_like(slices[0])
    values = torch.cat([slices.pop(0) if is_chosen else ones for is_chosen in chosen])
    return values if alpha == 1 else values.float() * alpha


def _block_diagonal(found: Sequence[torch.Tensor], chosen: tuple[bool, ...]) -> torch.Tensor:
    """``b`` (rank * slices, out) of the stacked (out, rank) factors of the slices adapted."""
    factors = list(found[0].chunk(sum(chosen)))
    width, rank = factors[0].shape
    b = found[0].new_zeros(rank * len(factors), width * len(chosen))
    row = 0
    for column, is_chosen in enumerate(chosen):
        if is_chosen:
            b[row : row + rank, column * width : (column + 1) * width] = factors.pop(0).T
            row += rank
    return b


def linear_path(layout: Layout, site: Site) -> str:
    """The library's path of a linear map, which an older transformers may have named otherwise."""
    role = f"{site.stack}.{site.role}"
    return layout.linear.get(role, site.module_path).format(i=site.layer)
