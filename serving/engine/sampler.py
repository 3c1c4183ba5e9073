"""From logits to tokens, each row by its own rules and its own random stream.

Shapes: ``R`` rows, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from serving.engine.row import Row


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen token of a row, with log-probabilities where the row asked for them."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


def choose(logits_RV: Tensor, rows: Sequence[Row]) -> list[Choice | None]:
    """One choice a row; None where a row's logits are not finite."""
    is_finite = logits_RV.sum(dim=1, dtype=torch.float32).isfinite().tolist()
    greedy = logits_RV.argmax(dim=1).tolist()
    choices: list[Choice | None] = []
    for i, row in enumerate(rows):
        if not is_finite[i]:
            choices.append(None)
            continue
        sampling = row.request.sampling
        token = greedy[i] if sampling.temperature == 0 else _sample(logits_RV[i], row)
        if sampling.logprobs is None:
            choices.append(Choice(token))
        else:
            choices.append(_with_logprobs(logits_RV[i], token, sampling.logprobs))
    return choices


def _sample(logits_V: Tensor, row: Row) -> int:
    sampling = row.request.sampling
    scaled = logits_V.float() / sampling.temperature
    if 0 < sampling.top_k < scaled.shape[0]:
        floor = scaled.topk(sampling.top_k).values[-1]
        scaled = scaled.masked_fill(scaled < floor, float("-inf"))
    probabilities = scaled.softmax(dim=0)
    if sampling.top_p < 1:
        ordered, order = probabilities.sort(descending=True)
        is_outside = ordered.cumsum(0) - ordered >= sampling.top_p
        probabilities = probabilities.index_fill(0, order[is_outside], 0.0)
    return int(torch.multinomial(probabilities, 1, generator=row.generator))


def _with_logprobs(logits_V: Tensor, token: int, count: int) -> Choice:
    logprobs = logits_V.float().log_softmax(dim=0)
    values, indices = logprobs.topk(min(count, logprobs.shape[0]))
    top = tuple(zip(indices.tolist(), values.tolist(), strict=True))
    return Choice(token, float(logprobs[token]), top)
