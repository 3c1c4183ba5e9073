"""Prompt tuning of ``adapters`` as a ``prompt`` part: rows before the embedded tokens."""

from __future__ import annotations

from adapters_store.formats.adapterhub.draft import Draft
from adapters_store.formats.adapterhub.member import Member
from adapters_store.formats.adapterhub.recipe import as_stored
from adapters_store.primitives.prompt import PromptPart

PROMPT_KEY = "prompt_tuning.prompt_tunings.{name}.prompt_embedding.weight"


def plan_prompt(member: Member, draft: Draft) -> None:
    """Add the rows, which pass neither the embedding's positions nor its norm."""
    num_tokens = member.options["prompt_length"]
    if member.layout.no_prompts:
        message = f"prompt tuning: {member.layout.no_prompts}"
        draft.abandon("unsupported_method", message, f"{draft.scope}.architecture")
        return
    if num_tokens < 1:
        message = f"prompt_length is {num_tokens}; expected 1 or more"
        draft.abandon("unreadable", message, f"{draft.scope}.prompt_length")
        return
    place = draft.shapes.anatomy.inputs[0]
    rows = draft.take(PROMPT_KEY.format(name=member.name), (num_tokens, place.width))
    part = PromptPart(input=place.name, num_tokens=num_tokens, has_positions=False)
    draft.add(part, [as_stored(rows)])
