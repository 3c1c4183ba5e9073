"""From logits to tokens, each row by its own rules and its own random stream.

Shapes: ``R`` rows, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from serving.engine.adjust import adjust, is_adjusted
from serving.engine.draw import draw, select
from serving.engine.row import Row
from serving.upload import upload

_BLOCK = 64

Top = tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen token of a row, with log-probabilities where the row asked for them."""

    token: int
    logprob: float | None = None
    top: Top = ()


def choose(logits_RV: Tensor, rows: Sequence[Row]) -> list[Choice | None]:
    """One choice a row; None where a row's logits are not finite. Overwrites the logits.

    Greedy tokens come back to the host in one transfer, in which -1 says that a row is not finite.
    """
    is_finite_R = _finite(logits_RV)
    asked = [i for i, row in enumerate(rows) if row.request.sampling.logprobs is not None]
    logprobs_SV = select(logits_RV, asked).float().log_softmax(dim=1) if asked else None
    if any(is_adjusted(row) for row in rows):
        logits_RV = logits_RV.float()
        adjust(logits_RV, rows)
        if any(row.has_masks for row in rows):
            is_finite_R = is_finite_R & (logits_RV.amax(dim=1) > float("-inf"))
    tokens: list[int] = torch.where(is_finite_R, likeliest(logits_RV), -1).tolist()
    is_finite = [token >= 0 for token in tokens]
    sampled = [i for i in range(len(rows)) if is_finite[i] and _is_sampled(rows[i])]
    if sampled:
        some_SV = select(logits_RV, sampled).float()
        drawn = draw(some_SV, [rows[i] for i in sampled])
        for i, token in zip(sampled, drawn, strict=True):
            tokens[i] = token
    choices: list[Choice | None] = [
        Choice(token) if finite else None for token, finite in zip(tokens, is_finite, strict=True)
    ]
    if logprobs_SV is not None:
        counts = [rows[i].request.sampling.logprobs or 0 for i in asked]
        scored = describe(logprobs_SV, [max(tokens[i], 0) for i in asked], counts)
        for i, choice in zip(asked, scored, strict=True):
            choices[i] = choice if is_finite[i] else None
    return choices


def likeliest(logits_RV: Tensor) -> Tensor:
    """The index (R,) of each row's largest logit, the first of equals.

    On the CPU the search goes by blocks, whose maxima are vector operations; an ``argmax`` is not.
    """
    V = logits_RV.shape[1]
    num_blocks, num_left = divmod(V, _BLOCK)
    if logits_RV.device.type != "cpu" or not num_blocks:
        return logits_RV.argmax(dim=1)
    logits_RV = logits_RV.float()
    largest_RB = logits_RV[:, : V - num_left].reshape(-1, num_blocks, _BLOCK).amax(dim=2)
    if num_left:
        rest_R1 = logits_RV[:, V - num_left :].amax(dim=1, keepdim=True)
        largest_RB = torch.cat([largest_RB, rest_R1], dim=1)
    first_R1: Tensor = largest_RB.argmax(dim=1, keepdim=True) * _BLOCK
    places = (first_R1 + torch.arange(_BLOCK)).clamp(max=V - 1)
    return first_R1.squeeze(1) + logits_RV.gather(1, places).argmax(dim=1)


def finite_rows(logits_RV: Tensor) -> list[bool]:
    """Whether each row's logits are all finite."""
    is_finite: list[bool] = _finite(logits_RV).tolist()
    return is_finite


def _finite(logits_RV: Tensor) -> Tensor:
    return logits_RV.sum(dim=1, dtype=torch.float32).isfinite()


def describe(logprobs_SV: Tensor, tokens: Sequence[int], counts: Sequence[int]) -> list[Choice]:
    """Each token with its log-probability and the row's ``counts`` most likely tokens."""
    at = upload(tokens, logprobs_SV.device)
    own: list[float] = logprobs_SV.gather(1, at[:, None]).squeeze(1).tolist()
    top = logprobs_SV.topk(min(max(counts), logprobs_SV.shape[1]), dim=1)
    values, indices = top.values.tolist(), top.indices.tolist()
    return [
        Choice(token, own[n], tuple(zip(indices[n][:count], values[n][:count], strict=True)))
        for n, (token, count) in enumerate(zip(tokens, counts, strict=True))
    ]


def _is_sampled(row: Row) -> bool:
    return row.request.sampling.temperature > 0
