"""Prefix tuning: a ``prefix`` part for every self-attention of the model's last stack.

The saved row of a token holds L pairs of a key and a value of all key-value heads. PEFT puts them
in as a cache of past tokens: rows carry no rotary angle, tokens follow behind them, and an
encoder-decoder's encoder and cross attentions get none. A decoder alone takes pair i in layer i.
Behind an encoder, PEFT repeats the pairs, deals two of them to every layer, one for cross
attention, and then empties the cross attentions: layer i is left with pair 2 i mod L.
Legend: P tokens, L layers, H heads, W width of a head.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from adapters_store.backbone import BackboneRecord
from adapters_store.families.anatomy import Anatomy, Attention
from adapters_store.formats.draft import Draft, piece
from adapters_store.formats.peft import saved
from adapters_store.formats.peft.prompt import PREFIX, ROWS, submodules
from adapters_store.formats.peft.settings import PrefixTuningSettings
from adapters_store.primitives.prefix import PrefixPart

if TYPE_CHECKING:
    import torch


def plan(draft: Draft, settings: PrefixTuningSettings) -> None:
    """Add what the adapter becomes to ``draft``, or the reasons why it cannot be."""
    anatomy, num_tokens = draft.shapes.anatomy, settings.num_virtual_tokens
    places, stack = own_attentions(anatomy), anatomy.inputs[-1].name
    num_heads, width = places[0].num_kv_heads, places[0].head_dim
    for option, found, expected in (
        ("num_layers", settings.num_layers, len(places)),
        ("num_attention_heads", settings.num_attention_heads, num_heads),
        ("token_dim", settings.token_dim, num_heads * width),
    ):
        if found not in (None, expected):
            message = f"{option} is {found}; the {stack} of {draft.backbone.name!r} has {expected}"
            draft.reject("incompatible", message, option)
    if (window := sliding_window(draft.backbone)) is not None:
        draft.reject(
            "incompatible",
            f"the attention window of {draft.backbone.name!r} ({window} tokens) hides PEFT's rows "
            "from tokens behind it; a prefix part is seen by all",
            "sliding_window",
        )
    is_behind_encoder = len(anatomy.inputs) == 2
    if (submodules(settings) == 2) != is_behind_encoder:
        draft.reject(
            "incompatible",
            f"num_transformer_submodules is {submodules(settings)}; {draft.backbone.name!r} has "
            f"{len(anatomy.inputs)} stacks",
            "num_transformer_submodules",
        )
    rows = draft.take(ROWS, (num_tokens, 2 * len(places) * num_heads * width))
    pairs = [pair_of(layer, len(places), is_behind_encoder) for layer in range(len(places))]
    if unused := sorted(set(range(len(places))) - set(pairs)):
        message = f"PEFT never reads pairs {unused} of {ROWS!r}; they are not imported"
        draft.note("unused_tensor", message, ROWS)
    for pair, place in zip(pairs, places):
        cut = partial(_cut, num_heads=num_heads, width=width)
        draft.add(
            PrefixPart(attention=place.name, num_tokens=num_tokens, shifts_positions=True),
            piece(f"{place.name}/prefix/key", partial(cut, index=2 * pair), rows),
            piece(f"{place.name}/prefix/value", partial(cut, index=2 * pair + 1), rows),
        )
    saved.plan(draft, settings, PREFIX)


def sliding_window(backbone: BackboneRecord) -> int | None:
    """How many tokens back an attention of the backbone sees, None where it sees all."""
    window = backbone.config.get("sliding_window")
    return window if window and backbone.config.get("use_sliding_window", True) else None


def own_attentions(anatomy: Anatomy) -> list[Attention]:
    """The self-attentions of the last stack, layer by layer."""
    stack = anatomy.inputs[-1].name
    return [
        place
        for place in anatomy.attentions
        if place.name.startswith(f"{stack}.") and place.name.endswith(".self")
    ]


def pair_of(layer: int, num_layers: int, is_behind_encoder: bool) -> int:
    """The pair of a saved row that a layer's self-attention gets."""
    return 2 * layer % num_layers if is_behind_encoder else layer


def _cut(
    tensors: Sequence[torch.Tensor], *, index: int, num_heads: int, width: int
) -> torch.Tensor:
    """Keys or values ``index`` of (P, 2 L H W), as (H, P, W)."""
    rows = tensors[0].reshape(tensors[0].shape[0], -1, num_heads, width)
    return rows[:, index].transpose(0, 1).contiguous()
