"""Objectives: a lazy table from name to the class that makes batches, losses and predictions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from adapters_store.errors import UsageError
from adapters_store.lazy import resolve

if TYPE_CHECKING:
    from training.objectives.base import Objective

OBJECTIVES: dict[str, str] = {
    "text2text": "training.objectives.text2text:Text2Text",
    "continuation": "training.objectives.continuation:Continuation",
    "choice": "training.objectives.choice:Choice",
    "classification": "training.objectives.classification:Classification",
}


def build_objective(name: str, model: Any, tokenizer: Any, **settings: Any) -> Objective:
    """The objective of that name on a transformers model; ``settings`` go to its constructor.

    Text to text on a decoder alone is the continuation of its input. Raises UsageError for an
    unknown name and for choice without an encoder.
    """
    if name == "choice" and not model.config.is_encoder_decoder:
        raise UsageError(
            f"objective 'choice' needs an encoder-decoder; found {model.config.model_type}"
        )
    if name == "text2text" and not model.config.is_encoder_decoder:
        name = "continuation"
    objective: Objective = resolve(OBJECTIVES, name, "objective")(tokenizer, **settings)
    return objective
