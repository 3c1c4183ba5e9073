"""Prefix tuning of ``adapters`` as ``prefix`` parts.

One group of tensors serves every attention at one location: for P rows and L layers, the vector
``control_trans`` (P * 2L * heads * head_dim), or a network that gives it, read as
(P, 2L, heads, head_dim) with keys at 2l and values at 2l + 1 of layer l. Positions do not move.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from adapters_store.families.anatomy import Attention
from adapters_store.formats.adapterhub.activations import ACTIVATIONS, activate
from adapters_store.formats.adapterhub.draft import Draft, short
from adapters_store.formats.adapterhub.layout import attentions
from adapters_store.formats.adapterhub.member import Member
from adapters_store.formats.adapterhub.recipe import Recipe
from adapters_store.formats.inspection import TensorRef
from adapters_store.primitives.bottleneck import BottleneckActivation
from adapters_store.primitives.prefix import PrefixPart

if TYPE_CHECKING:
    import torch

POOL = "prefix_tuning."
ALIAS = ".prefix_tuning.pool."
OPTIONAL = ("encoder_prefix", "cross_prefix")


def plan_prefix(member: Member, draft: Draft) -> None:
    """Add a part for every attention that the options name."""
    options, layout = member.options, member.layout
    activation = ACTIVATIONS.get(options["non_linearity"].lower())
    if activation is None and not options["flat"]:
        message = (
            f"non_linearity is {short(options['non_linearity'])}; known: {sorted(ACTIVATIONS)}"
        )
        draft.abandon("unsupported_option", message, f"{draft.scope}.non_linearity")
        return
    if options["prefix_length"] < 1 or options["bottleneck_size"] < 1:
        message = "prefix_length and bottleneck_size are numbers of rows; expected 1 or more"
        draft.abandon("unreadable", message, draft.scope)
        return
    places: dict[str, list[Attention]] = {}
    left_out: dict[str, list[Attention]] = {}
    for place in attentions(layout, draft.shapes):
        if place.key not in OPTIONAL or options[place.key]:
            group = left_out if member.leaves_out(place.layer) else places
            group.setdefault(place.key, []).append(draft.shapes.attention(place.name))
    for location, found in places.items():
        if location in left_out and found[0].relative_bias is not None:
            message = (
                f"leave_out {short(options['leave_out'])}: with a {location} in some layers only, "
                "`adapters` drops the relative position bias of the others"
            )
            draft.abandon("unsupported_option", message, f"{draft.scope}.leave_out")
            return
        _plan_location(member, location, found, activation or "identity", draft)
    _take_aliases(draft)


def _plan_location(
    member: Member,
    location: str,
    found: Sequence[Attention],
    activation: BottleneckActivation,
    draft: Draft,
) -> None:
    stem = f"{POOL}prefix_tunings.{member.name}.{location}"
    width = found[0].num_kv_heads * found[0].head_dim
    sources = _sources(member, stem, 2 * len(found) * width, draft)
    num_tokens = member.options["prefix_length"]
    for layer, attention in enumerate(found):
        heads = (attention.num_kv_heads, attention.head_dim)
        part = PrefixPart(attention=attention.name, num_tokens=num_tokens, shifts_positions=False)
        recipes = [
            Recipe(sources, _rows(num_tokens, 2 * layer + side, heads, activation))
            for side in (0, 1)
        ]
        draft.add(part, recipes)


def _sources(member: Member, stem: str, size: int, draft: Draft) -> tuple[TensorRef, ...]:
    """The flat vector, or the table, both layers' weights and biases of the network."""
    options = member.options
    num_tokens, inner = options["prefix_length"], options["bottleneck_size"]
    if options["flat"]:
        return (draft.take(f"{stem}.control_trans", (num_tokens * size,)),)
    hidden = draft.shapes.hidden_size
    shapes = {
        "wte.weight": (num_tokens, hidden),
        "control_trans.0.weight": (inner, hidden),
        "control_trans.0.bias": (inner,),
        "control_trans.2.weight": (size, inner),
        "control_trans.2.bias": (size,),
    }
    return tuple(draft.take(f"{stem}.{name}", shape) for name, shape in shapes.items())


def _rows(
    num_tokens: int, index: int, heads: tuple[int, int], activation: BottleneckActivation
) -> Callable[[Sequence[torch.Tensor]], torch.Tensor]:
    """One attention's keys or values (heads, num_tokens, head_dim); ``index`` is 2l or 2l + 1."""
    begin = index * heads[0] * heads[1]
    end = begin + heads[0] * heads[1]

    def make(found: Sequence[torch.Tensor]) -> torch.Tensor:
        if len(found) == 1:
            rows = found[0].reshape(num_tokens, -1)[:, begin:end]
        else:
            table, first, first_bias, last, last_bias = (tensor.float() for tensor in found)
            inner = activate(activation, table @ first.T + first_bias)
            rows = inner @ last[begin:end].T + last_bias[begin:end]
        return rows.reshape(num_tokens, *heads).transpose(0, 1)

    return make


def _take_aliases(draft: Draft) -> None:
    """Every layer's own name for the pool, which a converted pickle may spell out."""
    aliases = [key for key in draft.tensors if ALIAS in key]
    for key in aliases:
        draft.take(key, draft.shape(POOL + key.partition(ALIAS)[2]))
    if aliases:
        message = f"{len(aliases)} tensors repeat the pool's under its layers' names"
        draft.note("unused_tensor", message, ALIAS)
