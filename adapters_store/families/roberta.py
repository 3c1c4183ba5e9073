"""RoBERTa and XLM-RoBERTa: BERT's layout, with positions that count on from the padding token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adapters_store.errors import InvalidArtefactError
from adapters_store.families import bert
from adapters_store.families.architecture import Architecture
from adapters_store.families.config import positive_int
from adapters_store.families.family import Family


def architecture(config: Mapping[str, Any]) -> Architecture:
    """The runner's record; raises where the position table has no row behind the offset."""
    pad_token_id = int(config.get("pad_token_id", 1))
    offset = pad_token_id + 1
    num_positions = positive_int(config, "max_position_embeddings")
    if num_positions <= offset:
        raise InvalidArtefactError(
            f"max_position_embeddings is {num_positions} in config.json; positions begin at "
            f"pad_token_id + 1 = {offset}"
        )
    plain = bert.architecture(config)
    (encoder,) = plain.stacks
    embedding = replace(encoder.embedding, position_offset=offset)
    return replace(
        plain,
        stacks=(replace(encoder, embedding=embedding),),
        max_positions=num_positions - offset,
        pad_token_id=pad_token_id,
    )


FAMILY = Family(
    "roberta",
    bert.sites,
    bert.anatomy,
    runner=architecture,
    prefixes=("roberta.",),
    renames=bert.LEGACY_NORMS,
)
