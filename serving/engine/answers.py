"""Answers that need no decoding: scores of a row's own head, and embeddings."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize

from adapters_store.errors import IncompatibleError, NotFiniteError
from serving.engine.events import Embedded, Event, Failed, Scored
from serving.engine.prefill import Encoded
from serving.engine.request import Request
from serving.primitives.head import Head, pool, score


def not_finite(request: Request, what: str) -> Failed:
    """The failure of a row whose ``what`` holds NaN or infinity."""
    source = request.adapter or "the bare backbone"
    return Failed(request.id, NotFiniteError.code, f"{what} of {source} are not finite")


def answer(encoded: Encoded) -> list[Event]:
    """Events of all rows that classify or embed; rows that generate have none."""
    kinds = [row.request.kind for row in encoded.rows]
    if all(kind == "generate" for kind in kinds):
        return []
    mean_RD, first_RD = pool(encoded.hidden, encoded.lengths)
    return _scored(encoded, mean_RD, first_RD) + _embedded(encoded, mean_RD)


def _scored(encoded: Encoded, mean_RD: Tensor, first_RD: Tensor) -> list[Event]:
    events: list[Event] = []
    indices: list[int] = []
    heads: list[Head] = []
    for i, row in enumerate(encoded.rows):
        if row.request.kind != "classify":
            continue
        head = row.prepared.head
        if head is None:
            message = f"adapter {row.request.adapter} has no head; it cannot classify"
            events.append(Failed(row.request.id, IncompatibleError.code, message))
        else:
            indices.append(i)
            heads.append(head)
    if not heads:
        return events
    at = torch.tensor(indices, device=mean_RD.device)
    for i, scores in zip(indices, score(mean_RD[at], first_RD[at], heads), strict=True):
        row = encoded.rows[i]
        values = scores.tolist()
        if scores.isfinite().all():
            events.append(Scored(row.request.id, values, row.num_input))
        else:
            events.append(not_finite(row.request, "scores"))
    return events


def _embedded(encoded: Encoded, mean_RD: Tensor) -> list[Event]:
    events: list[Event] = []
    for row, vector in zip(encoded.rows, normalize(mean_RD, dim=1), strict=True):
        if row.request.kind != "embed":
            continue
        if vector.isfinite().all():
            events.append(Embedded(row.request.id, vector.tolist(), row.num_input))
        else:
            events.append(not_finite(row.request, "hidden states"))
    return events
