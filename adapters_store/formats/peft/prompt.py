"""Prompt tuning and P-tuning: rows before the tokens of the first stack, as a ``prompt`` part."""

from __future__ import annotations

from functools import partial

from adapters_store.formats.convert import as_stored, first_rows
from adapters_store.formats.draft import Draft, piece
from adapters_store.formats.peft import saved
from adapters_store.formats.peft.settings import PromptLearningSettings
from adapters_store.primitives.prompt import PromptPart

ROWS = "prompt_embeddings"
PREFIX = "base_model."
"""In front of the modules that a prompt learning method saves whole."""


def plan(draft: Draft, settings: PromptLearningSettings) -> None:
    """Add what the rows become to ``draft``, or the reasons why they cannot be."""
    place = draft.shapes.anatomy.inputs[0]
    num_tokens, copies = settings.num_virtual_tokens, submodules(settings)
    if settings.token_dim not in (None, place.width):
        draft.reject(
            "incompatible",
            f"token_dim is {settings.token_dim}; the rows of {draft.backbone.name!r} have "
            f"{place.width}",
            "token_dim",
        )
    rows = draft.take(ROWS, (num_tokens * copies, place.width))
    if copies > 1:
        draft.note(
            "unused_tensor",
            f"rows {num_tokens} to {num_tokens * copies - 1} of {ROWS!r} are for the decoder; "
            "PEFT never puts them in, and they are not imported",
            ROWS,
        )
    if rows is not None:
        part = PromptPart(input=place.name, num_tokens=num_tokens, has_positions=True)
        make = as_stored if copies == 1 else partial(first_rows, count=num_tokens)
        draft.add(part, piece(f"{place.name}/prompt/0/rows", make, rows))
    saved.plan(draft, settings, PREFIX)


def submodules(settings: PromptLearningSettings) -> int:
    """How many submodules the rows were made for, by PEFT's default where none is given."""
    return settings.num_transformer_submodules or (2 if settings.task_type == "SEQ_2_SEQ_LM" else 1)
