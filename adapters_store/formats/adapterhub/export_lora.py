"""``low_rank`` and ``scale`` parts as LoRA and IA3 configurations of ``adapters``."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from adapters_store.errors import RejectedArtefactError
from adapters_store.formats.adapterhub.cover import Slot, cover
from adapters_store.formats.adapterhub.layout import Place, sites
from adapters_store.formats.adapterhub.lora import PACKED, linear_path
from adapters_store.formats.adapterhub.outgoing import NAME, Outgoing, only
from adapters_store.primitives.low_rank import LowRankPart
from adapters_store.primitives.scale import ScalePart

if TYPE_CHECKING:
    import torch

_FEED_FORWARD = ("intermediate_lora", "output_lora")


def fill_low_rank(outgoing: Outgoing) -> dict[str, Any]:
    """Add the factors; returns the options, or raises RejectedArtefactError."""
    parts = {part.site: part for part in outgoing.parts(LowRankPart)}
    packed = {name: _packed_b(name, outgoing) for name in parts if _is_packed(name)}
    chosen = _chosen(packed.values())
    options = _options(list(parts), chosen, outgoing)
    scale = only((part.scale for part in parts.values()), "scale")
    ranks: list[int] = []
    for name, part in parts.items():
        a, b = (outgoing.given[f"{name}/low_rank/{side}"] for side in ("a", "b"))
        num_slices = sum(chosen) if name in packed else 1
        if part.rank % num_slices:
            raise RejectedArtefactError(f"rank {part.rank} at {name} is not one of equal slices")
        rank = part.rank // num_slices
        stem = _stem(name, outgoing)
        outgoing.tensors[f"{stem}.lora_A"] = a.T
        outgoing.tensors[f"{stem}.lora_B"] = (
            _stacked(name, b, chosen, rank) if name in packed else b.T
        )
        ranks.append(rank)
    rank = only(ranks, "rank")
    return options | {"composition_mode": "add", "r": rank, "alpha": _alpha(scale, rank)}


def fill_scale(outgoing: Outgoing) -> dict[str, Any]:
    """Add the vectors; returns the options, or raises RejectedArtefactError."""
    parts = {part.site: part for part in outgoing.parts(ScalePart)}
    side = only((part.side for part in outgoing.parts(ScalePart)), "the side that is scaled")
    if side != "output":
        raise RejectedArtefactError(
            "the input of a linear map is scaled; IA3 of `adapters` scales outputs"
        )
    vectors = {name: outgoing.given[f"{name}/scale/output"] for name in parts}
    slices = [vectors[name].chunk(3) for name in parts if _is_packed(name)]
    chosen = _chosen([[bool((values != 1).any()) for values in found] for found in slices])
    options = _options(list(parts), chosen, outgoing)
    for name, vector in vectors.items():
        kept = vector.chunk(3) if _is_packed(name) else (vector,)
        wanted = chosen if _is_packed(name) else (True,)
        found = [values for values, is_chosen in zip(kept, wanted) if is_chosen]
        outgoing.tensors[f"{_stem(name, outgoing)}.lora_B"] = _joined(found).reshape(-1, 1)
    return options | {"composition_mode": "scale", "r": 1, "alpha": 1, "init_weights": "ia3"}


def _options(names: Sequence[str], chosen: tuple[bool, ...], outgoing: Outgoing) -> dict[str, Any]:
    slots = [
        Slot(place.name, _switch(place), place.layer)
        for place in sites(outgoing.layout, outgoing.shapes)
    ]
    switches, left_out = cover(names, slots)
    letters = [letter for letter in PACKED if letter in switches]
    if "qkv" in switches:
        letters = [letter for letter, is_chosen in zip(PACKED, chosen) if is_chosen]
    return {
        "architecture": "lora",
        "selfattn_lora": bool(letters),
        "attn_matrices": letters,
        **{option: option in switches for option in _FEED_FORWARD},
        "leave_out": left_out,
        "use_gating": False,
        "use_dora": False,
        "vera_d": None,
        "vera_b": None,
    }


def _switch(place: Place) -> str:
    """What turns the site on: its letter in attentions, else its option."""
    return place.name.rpartition(".")[2] if place.kind != "ffn" else place.key


def _is_packed(name: str) -> bool:
    return name.endswith(".qkv")


def _stem(name: str, outgoing: Outgoing) -> str:
    return f"{linear_path(outgoing.layout, outgoing.shapes.site(name))}.loras.{NAME}"


def _packed_b(name: str, outgoing: Outgoing) -> list[bool]:
    """Which of queries, keys and values the part adds to."""
    b = outgoing.given[f"{name}/low_rank/b"]
    return [bool(columns.any()) for columns in b.chunk(3, dim=1)]


def _chosen(found: Iterable[Sequence[bool]]) -> tuple[bool, ...]:
    """The slices that any layer adapts; all where there are none to tell by."""
    columns = list(zip(*found))
    chosen = tuple(any(column) for column in columns)
    return chosen if any(chosen) else (True, True, True)


def _stacked(name: str, b: torch.Tensor, chosen: tuple[bool, ...], rank: int) -> torch.Tensor:
    """The (out, rank) factors of the slices, each with rows of ``b`` that serve it alone."""
    width = b.shape[1] // len(chosen)
    rest, found, row = b.clone(), [], 0
    for column, is_chosen in enumerate(chosen):
        if is_chosen:
            window = (slice(row, row + rank), slice(column * width, (column + 1) * width))
            found.append(b[window].T)
            rest[window] = 0
            row += rank
    if bool(rest.any()):
        raise RejectedArtefactError(
            f"the factors at {name} serve queries, keys and values together; `adapters` has "
            "factors for each"
        )
    return _joined(found)


def _joined(found: Sequence[torch.Tensor]) -> torch.Tensor:
    import torch

    return torch.cat(list(found))


def _alpha(scale: float, rank: int) -> int | float:
    """A number that is ``scale`` when divided by ``rank``, or as near as numbers come."""
    alpha = scale * rank
    near = (alpha, math.nextafter(alpha, math.inf), math.nextafter(alpha, -math.inf))
    best = min(near, key=lambda value: abs(value / rank - scale))
    return int(best) if best.is_integer() else best
