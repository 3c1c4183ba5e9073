"""``prefix`` and ``prompt`` parts as flat prefixes and prompts of ``adapters``."""

from __future__ import annotations

from typing import Any

from adapters_store.errors import RejectedArtefactError
from adapters_store.formats.adapterhub.cover import Slot, cover
from adapters_store.formats.adapterhub.layout import attentions
from adapters_store.formats.adapterhub.outgoing import NAME, Outgoing, only
from adapters_store.formats.adapterhub.prefix import OPTIONAL, POOL
from adapters_store.formats.adapterhub.prompt import PROMPT_KEY
from adapters_store.primitives.prefix import PrefixPart
from adapters_store.primitives.prompt import PromptPart


def fill_prefix(outgoing: Outgoing) -> dict[str, Any]:
    """Add the rows; returns the options, or raises RejectedArtefactError."""
    import torch

    parts = {part.attention: part for part in outgoing.parts(PrefixPart)}
    places = {place.name: place for place in attentions(outgoing.layout, outgoing.shapes)}
    slots = [Slot(name, place.key, place.layer) for name, place in places.items()]
    always = frozenset({slot.switch for slot in slots} - set(OPTIONAL))
    switches, left_out = cover(parts, slots, always)
    if only((part.shifts_positions for part in parts.values()), "shifts_positions"):
        raise RejectedArtefactError(
            "the prefixes move the tokens' positions; those of `adapters` do not"
        )
    num_tokens = only((part.num_tokens for part in parts.values()), "num_tokens")
    for switch in sorted(switches):
        names = [name for name, place in places.items() if place.key == switch]
        found = [name for name in names if name in parts]
        place = outgoing.shapes.attention(names[0])
        if place.relative_bias is not None and len(found) != len(names):
            raise RejectedArtefactError(
                f"only some layers have a {switch}; `adapters` then drops the relative position "
                "bias of the others"
            )
        rows = [
            outgoing.given[f"{name}/prefix/{side}"].transpose(0, 1)
            for name in found
            for side in ("key", "value")
        ]
        flat = torch.stack(rows, dim=1).flatten()
        outgoing.tensors[f"{POOL}prefix_tunings.{NAME}.{switch}.control_trans"] = flat
    return {
        "architecture": "prefix_tuning",
        **{option: option in switches for option in OPTIONAL},
        "leave_out": left_out,
        "flat": True,
        "prefix_length": num_tokens,
        "use_gating": False,
    }


def fill_prompt(outgoing: Outgoing) -> dict[str, Any]:
    """Add the rows; returns the options, or raises RejectedArtefactError."""
    parts = outgoing.parts(PromptPart)
    if outgoing.layout.no_prompts:
        raise RejectedArtefactError(outgoing.layout.no_prompts)
    if len(parts) != 1 or parts[0].layer != 0:
        raise RejectedArtefactError("rows at later layers; `adapters` has rows before the first")
    if parts[0].has_positions:
        raise RejectedArtefactError(
            "the prompt passes the embedding's positions; rows of `adapters` stand behind them"
        )
    rows = outgoing.given[f"{parts[0].input}/prompt/0/rows"]
    outgoing.tensors[PROMPT_KEY.format(name=NAME)] = rows
    return {
        "architecture": "prompt_tuning",
        "prompt_length": parts[0].num_tokens,
        "combine": "prefix",
    }
