"""Bottleneck adapters of ``adapters``, sequential and parallel, as ``bottleneck`` parts.

With the primitive's letters: x is the residual stream beside a sub-layer, f what the sub-layer
adds. The library computes ``z`` and ``r`` from its flags, then ``h = delta(z) + r``, and last
``norm(h + x)`` (``h + x`` where norms stand before), or ``h`` alone without ``original_ln_after``.
That is the primitive's ``x + f + delta(z)`` in the cases of :func:`what_it_reads` and in no other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from adapters_store.errors import InvalidArtefactError
from adapters_store.formats.adapterhub.activations import ACTIVATIONS
from adapters_store.formats.adapterhub.draft import Draft, short
from adapters_store.formats.adapterhub.layout import blocks
from adapters_store.formats.adapterhub.member import Member
from adapters_store.formats.adapterhub.projection import dense, hypercomplex
from adapters_store.formats.adapterhub.recipe import Recipe
from adapters_store.primitives.bottleneck import BottleneckPart, Reads

if TYPE_CHECKING:
    import torch

FLAGS = {"self": "mh_adapter", "cross": "cross_adapter", "ffn": "output_adapter"}
EPSILON = 1e-5
_SCALINGS = ("learned", "channel")


@dataclass(frozen=True, slots=True)
class Inexpressible:
    """Why a combination of options is not the primitive's equation."""

    why: str


def what_it_reads(options: Mapping[str, Any], *, is_post_norm: bool) -> Reads | Inexpressible:
    """Which value the primitive's bottleneck reads, or why the options are another equation."""
    before, after = options["original_ln_before"], options["original_ln_after"]
    residual = options["residual_before_ln"]
    if options["is_parallel"]:
        return "residual" if after else Inexpressible("the residual stream is left out")
    if residual not in (True, False, "post_add"):
        return Inexpressible("its value is not known")
    if residual == "post_add":
        if not (before and is_post_norm):
            return Inexpressible("`adapters` itself fails on it")
        fault = "counted twice" if after else "not normed"
        return Inexpressible(f"the residual stream is {fault}")
    adds_to_f = residual is True or not before
    if after and adds_to_f:
        return "sum" if before else "output"
    if after:
        fault = "the layer's norm is applied twice" if is_post_norm else "x is counted twice"
        return Inexpressible(fault)
    if adds_to_f:
        return Inexpressible("the residual stream is left out")
    if is_post_norm:
        return Inexpressible("the bottleneck is added behind the layer's norm")
    return "sum"


def plan_bottleneck(member: Member, draft: Draft) -> None:
    """Add a part for every block that the options name."""
    options, scaling = member.options, member.options["scaling"]
    activation = ACTIVATIONS.get(options["non_linearity"].lower())
    if activation is None:
        message = (
            f"non_linearity is {short(options['non_linearity'])}; known: {sorted(ACTIVATIONS)}"
        )
        draft.abandon("unsupported_option", message, f"{draft.scope}.non_linearity")
        return
    if isinstance(scaling, str) and scaling not in _SCALINGS:
        message = f"scaling is {short(scaling)}; expected a number, 'learned' or 'channel'"
        draft.abandon("unsupported_option", message, f"{draft.scope}.scaling")
        return
    for place in blocks(member.layout, draft.shapes):
        if not options[FLAGS[place.kind]] or member.leaves_out(place.layer):
            continue
        block = draft.shapes.block(place.name)
        reads = what_it_reads(options, is_post_norm=block.post_norm_path is not None)
        if isinstance(reads, Inexpressible):
            draft.abandon("unsupported_option", f"{_flags(options)}: {reads.why}", draft.scope)
            return
        stem = f"{place.key}.{member.name}"
        part = BottleneckPart(
            block=place.name,
            rank=_rank(options, place.layer, stem, block.width, draft),
            activation=activation,
            reads=reads,
            scale=1.0 if isinstance(scaling, str) else float(scaling),
            norm_eps=EPSILON if options["ln_before"] else None,
        )
        draft.add(part, _recipes(member, stem, (block.width, part.rank), draft))


def _rank(options: Mapping[str, Any], layer: int, stem: str, width: int, draft: Draft) -> int:
    """The place's rank: the stored bias's size, which must be what the configuration gives."""
    factor = options["reduction_factor"]
    where = f"{draft.scope}.reduction_factor"
    if isinstance(factor, Mapping):
        factor = factor.get(str(layer), factor.get("default"))
    if isinstance(factor, bool) or not isinstance(factor, int | float) or factor < 1 / width:
        message = (
            f"reduction_factor is {short(factor)} for layer {layer}; expected a number above 0"
        )
        draft.reject("unreadable", message, where)
        return 1
    expected = max(1, int(width // factor))
    key = f"{_down_stem(stem, options)}.weight"
    found = draft.shape(key)[:1] or (expected,)
    if not options["phm_layer"] and found[0] != expected:
        message = f"{key} has rank {found[0]}; width {width} over {factor} is {expected}"
        draft.reject("rank_mismatch", message, where)
        return max(1, found[0])
    return expected


def _recipes(member: Member, stem: str, shape: tuple[int, int], draft: Draft) -> list[Recipe]:
    """Recipes for the part's tensors, in the order of its specs."""
    options, scaling = member.options, member.options["scaling"]
    width, rank = shape
    stems = (_down_stem(stem, options), f"{stem}.adapter_up")
    if options["phm_layer"]:
        shared = f"shared_parameters.{member.name}"
        down, down_bias = hypercomplex(stems[0], shared, "down", (width, rank), options, draft)
        up, up_bias = hypercomplex(stems[1], shared, "up", (rank, width), options, draft)
    else:
        down, down_bias = dense(stems[0], (width, rank), draft)
        up, up_bias = dense(stems[1], (rank, width), draft)
    if isinstance(scaling, str):
        factor = draft.take(f"{stem}.scaling", (1,) if scaling == "learned" else (width,))
        up, up_bias = up.times(factor), up_bias.times(factor)
    recipes = [down, down_bias, up, up_bias]
    if options["ln_before"]:
        recipes += [_norm(stem, parameter, width, draft) for parameter in ("weight", "bias")]
    return recipes


def _down_stem(stem: str, options: Mapping[str, Any]) -> str:
    """A norm before the bottleneck takes the first place in the sequence."""
    return f"{stem}.adapter_down.{int(options['ln_before'])}"


def _norm(stem: str, parameter: str, width: int, draft: Draft) -> Recipe:
    """The norm before the bottleneck, which the library saves under two names."""
    keys = [f"{stem}.adapter_norm_before.{parameter}", f"{stem}.adapter_down.0.{parameter}"]
    found = [key for key in keys if draft.has(key)] or keys[:1]
    return Recipe(tuple(draft.take(key, (width,)) for key in found), _agreed)


def _agreed(copies: Sequence[torch.Tensor]) -> torch.Tensor:
    if any(not copies[0].equal(other) for other in copies[1:]):
        raise InvalidArtefactError(
            "adapter_norm_before and adapter_down.0 are one norm, and differ in the file"
        )
    return copies[0]


def _flags(options: Mapping[str, Any]) -> str:
    names = ("is_parallel", "original_ln_before", "original_ln_after", "residual_before_ln")
    return ", ".join(f"{name} {short(options[name])}" for name in names)
