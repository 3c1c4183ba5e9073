"""``prompt`` and ``prefix`` parts as prompt tuning and prefix tuning."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters_store.errors import RejectedArtefactError
from adapters_store.formats.peft.outgoing import Outgoing
from adapters_store.formats.peft.prefix import own_attentions, pair_of, sliding_window
from adapters_store.formats.peft.prompt import PREFIX, ROWS
from adapters_store.primitives.override import OverridePart
from adapters_store.primitives.prefix import PrefixPart
from adapters_store.primitives.prompt import PromptPart

if TYPE_CHECKING:
    import torch


def fill_prompt(outgoing: Outgoing) -> None:
    """Add a prompt and the head; raises RejectedArtefactError for deep or later prompts."""
    _refuse_overrides(outgoing)
    parts, place = outgoing.parts(PromptPart), outgoing.shapes.anatomy.inputs[0]
    part = parts[0]
    if len(parts) > 1 or (part.input, part.layer, part.has_positions) != (place.name, 0, True):
        raise RejectedArtefactError(
            "PEFT puts one prompt with positions before the tokens of the first stack; the "
            f"artefact has {[(p.input, p.layer, p.has_positions) for p in parts][:3]} as (input, "
            "layer, has_positions)"
        )
    outgoing.tensors[ROWS] = outgoing.given[f"{place.name}/prompt/0/rows"]
    outgoing.options |= {
        "peft_type": "PROMPT_TUNING",
        "num_virtual_tokens": part.num_tokens,
        "num_transformer_submodules": 1,
        "token_dim": place.width,
    }
    outgoing.save_head(PREFIX)


def fill_prefix(outgoing: Outgoing) -> None:
    """Add prefixes and the head; raises RejectedArtefactError where layers differ from PEFT's."""
    import torch

    _refuse_overrides(outgoing)
    if (window := sliding_window(outgoing.backbone)) is not None:
        raise RejectedArtefactError(
            f"PEFT's rows are hidden from tokens behind the attention window of {window}; the "
            "artefact's are seen by all"
        )
    anatomy = outgoing.shapes.anatomy
    places, is_behind_encoder = own_attentions(anatomy), len(anatomy.inputs) == 2
    parts = {part.attention: part for part in outgoing.parts(PrefixPart)}
    num_tokens = {part.num_tokens for part in parts.values()}
    is_shifted = all(part.shifts_positions for part in parts.values())
    if set(parts) != {place.name for place in places} or len(num_tokens) > 1 or not is_shifted:
        raise RejectedArtefactError(
            "PEFT puts equally many rows, which shift positions, into every self-attention of "
            f"the last stack ({len(places)}); the artefact has {len(parts)} with {num_tokens} rows"
        )
    pairs: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
    for layer, place in enumerate(places):
        stem, pair = f"{place.name}/prefix", pair_of(layer, len(places), is_behind_encoder)
        rows = (outgoing.given[f"{stem}/key"], outgoing.given[f"{stem}/value"])
        if pair in pairs and not all(torch.equal(x, y) for x, y in zip(rows, pairs[pair])):
            raise RejectedArtefactError(
                f"PEFT gives layer {layer} of {outgoing.model_type} the rows of an earlier layer; "
                "the artefact's differ"
            )
        pairs[pair] = rows
    key, value = pairs[0]
    unused = (torch.zeros_like(key), torch.zeros_like(value))
    dealt = [rows for pair in range(len(places)) for rows in pairs.get(pair, unused)]
    count, width = num_tokens.pop(), places[0].num_kv_heads * places[0].head_dim
    flat = [rows.transpose(0, 1).reshape(count, width) for rows in dealt]
    outgoing.tensors[ROWS] = torch.cat(flat, dim=1)
    outgoing.options |= {
        "peft_type": "PREFIX_TUNING",
        "num_virtual_tokens": count,
        "num_transformer_submodules": 2 if is_behind_encoder else 1,
        "num_layers": len(places),
        "num_attention_heads": places[0].num_kv_heads,
        "token_dim": width,
        "encoder_hidden_size": width,
        "prefix_projection": False,
    }
    outgoing.save_head(PREFIX)


def _refuse_overrides(outgoing: Outgoing) -> None:
    if parts := outgoing.parts(OverridePart):
        raise RejectedArtefactError(
            f"PEFT has no place for the override of {parts[0].vector!r} beside rows"
        )
