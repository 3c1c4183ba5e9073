"""Objectives: a lazy table from name to the class that makes batches, losses and predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters_store.lazy import resolve

if TYPE_CHECKING:
    from training.objectives.base import Objective

OBJECTIVES: dict[str, str] = {
    "text2text": "training.objectives.text2text:Text2Text",
    "continuation": "training.objectives.continuation:Continuation",
    "choice": "training.objectives.choice:Choice",
    "continuation_choice": "training.objectives.choice:ContinuationChoice",
    "classification": "training.objectives.classification:Classification",
}


_ON_A_DECODER = {"text2text": "continuation", "choice": "continuation_choice"}


def build_objective(name: str, model: Any, tokenizer: Any, **settings: Any) -> Objective:
    """The objective of that name on a transformers model; ``settings`` go to its constructor.

    On a decoder alone, text to text and choice are continuations of the input. Raises UsageError
    for an unknown name.
    """
    if not model.config.is_encoder_decoder:
        name = _ON_A_DECODER.get(name, name)
    objective: Objective = resolve(OBJECTIVES, name, "objective")(tokenizer, **settings)
    return objective
