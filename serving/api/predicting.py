"""One input of a task to its typed output."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from adapters_store.errors import IncompatibleError
from serving.api.generation import count_tokens, generate_all, new_request, observe_first
from serving.api.prompts import make_ending, make_sampling, settle_beams
from serving.api.resolver import Target
from serving.api.sampling_body import SamplingBody
from serving.api.service import Service
from serving.engine.events import Embedded, Scored
from serving.engine.request import RequestKind


@dataclass(frozen=True, slots=True)
class Prediction:
    """``output`` is a text, ``{"label", "scores"}`` or a vector, by the task's type."""

    output: Any
    num_input_tokens: int
    num_output_tokens: int = 0
    finish_reason: str | None = None


def writes_text(target: Target) -> bool:
    """Whether the task's outputs are generated; a head's scores and embeddings are not."""
    assert target.signature is not None
    assert target.manifest is not None
    return target.signature.task != "embedding" and target.manifest.head_part is None


async def predict_one(
    service: Service, target: Target, ids: Sequence[int], parameters: SamplingBody, index: int
) -> Prediction:
    """Run one row of ``target``; ``index`` gives each input of a seeded call its own seed."""
    signature, manifest = target.signature, target.manifest
    assert signature is not None
    assert manifest is not None
    if signature.task == "embedding":
        event = await _ask(service, target, ids, "embed")
        assert isinstance(event, Embedded)
        return Prediction(list(event.vector), event.num_input_tokens)
    if manifest.head_part is not None:
        event = await _ask(service, target, ids, "classify")
        assert isinstance(event, Scored)
        return Prediction(labelled(target, event.scores), event.num_input_tokens)
    settle_beams(target, parameters, service.config.engine.max_rows, is_single=True)
    sampling = make_sampling(
        target, parameters, service.config.limits, num_input=len(ids), index=index
    )
    ending = make_ending(parameters)
    output, *_ = await generate_all(target, ids, sampling, ending, service.metrics)
    answer: Any = output.text
    if signature.task == "classification":
        answer = {"label": output.text.strip(), "scores": None}
    return Prediction(
        answer, output.num_input_tokens, output.num_output_tokens, output.finish_reason
    )


def labelled(target: Target, logits: Sequence[float]) -> dict[str, Any]:
    """The likeliest label and the probability of each (soft-max of the head's logits)."""
    assert target.signature is not None
    labels = target.signature.labels
    if len(labels) != len(logits):
        raise IncompatibleError(
            f"{target.resolved} names {len(labels)} labels; its head gives {len(logits)} scores",
            hint="Publish the task again with one label for each row of its head.",
        )
    top = max(logits)
    weights = [math.exp(one - top) for one in logits]
    total = sum(weights)
    scores = {label: weight / total for label, weight in zip(labels, weights, strict=True)}
    return {"label": labels[logits.index(top)], "scores": scores}


async def _ask(
    service: Service, target: Target, ids: Sequence[int], kind: RequestKind
) -> Scored | Embedded:
    started = time.perf_counter()
    event = await target.served.core.score(new_request(kind, target, ids))
    observe_first(service.metrics, target.served.name, started)
    count_tokens(service.metrics, target.served.name, len(ids), 0)
    return event
