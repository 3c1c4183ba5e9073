"""Answers that need no decoding: scores of a row's own head, and embeddings."""

from __future__ import annotations

from itertools import islice
from math import isfinite

import torch
from torch.nn.functional import normalize

from adapters_store.errors import IncompatibleError, NotFiniteError
from serving.engine.events import Embedded, Event, Failed, Scored
from serving.engine.prefill import Encoded
from serving.engine.request import Request
from serving.primitives.head import Head, Span, States, score


def not_finite(request: Request, what: str) -> Failed:
    """The failure of a row whose ``what`` holds NaN or infinity."""
    source = request.adapter or "the bare backbone"
    return Failed(request.id, NotFiniteError.code, f"{what} of {source} are not finite")


def answer(encoded: Encoded) -> list[Event]:
    """Events of all rows that classify or embed; rows that generate have none."""
    kinds = [row.request.kind for row in encoded.rows]
    if all(kind == "generate" for kind in kinds):
        return []
    spans = [
        Span(start, start + row.num_read, row.num_read - row.num_input)
        for row, start in zip(encoded.rows, encoded.starts, strict=True)
    ]
    states = States(encoded.hidden, spans)
    return _scored(encoded, states) + _embedded(encoded, states)


def _scored(encoded: Encoded, states: States) -> list[Event]:
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
    flat = iter(torch.cat(score(states, indices, heads)).tolist())
    for i, head in zip(indices, heads, strict=True):
        row = encoded.rows[i]
        values = list(islice(flat, head.num_labels))
        if all(map(isfinite, values)):
            events.append(Scored(row.request.id, values, row.num_input))
        else:
            events.append(not_finite(row.request, "scores"))
    return events


def _embedded(encoded: Encoded, states: States) -> list[Event]:
    events: list[Event] = []
    if all(row.request.kind != "embed" for row in encoded.rows):
        return events
    vectors: list[list[float]] = normalize(states.mean, dim=1).tolist()
    for row, vector in zip(encoded.rows, vectors, strict=True):
        if row.request.kind != "embed":
            continue
        if all(map(isfinite, vector)):
            events.append(Embedded(row.request.id, vector, row.num_input))
        else:
            events.append(not_finite(row.request, "hidden states"))
    return events
