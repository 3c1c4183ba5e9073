"""One output of one prompt: tokens from the core become text, stop strings end it."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from adapters_store.errors import UnavailableError
from serving.api.resolver import Target
from serving.api.text import StopScanner
from serving.engine.events import Finished, Token
from serving.engine.request import Request, RequestKind, Sampling
from serving.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that is safe to give out, and the tokens that came since the piece before.

    ``finish_reason`` (``stop`` or ``length``) is set on the last piece alone. Counts are totals.
    """

    text: str
    tokens: tuple[Token, ...] = ()
    finish_reason: str | None = None
    num_input_tokens: int = 0
    num_output_tokens: int = 0


@dataclass(frozen=True, slots=True)
class Output:
    """A finished generation."""

    text: str
    tokens: tuple[Token, ...]
    finish_reason: str
    num_input_tokens: int
    num_output_tokens: int


async def generate(
    target: Target, ids: Sequence[int], sampling: Sampling, stops: Sequence[str], metrics: Metrics
) -> AsyncGenerator[Piece, None]:
    """Pieces of one output, without empty ones but for the last; raises what the core reports."""
    served = target.served
    detokenizer, scanner = served.tokenizer.detokenizer(), StopScanner(stops)
    request = new_request("generate", target, ids, sampling)
    started, num_output = time.perf_counter(), 0
    pending: list[Token] = []
    try:
        async with aclosing(served.core.generate(request)) as events:
            async for event in events:
                if isinstance(event, Token):
                    if num_output == 0:
                        observe_first(metrics, served.name, started)
                    num_output += 1
                    pending.append(event)
                    text = scanner.push(detokenizer.push(event.token))
                    if scanner.is_stopped:
                        yield Piece(text, tuple(pending), "stop", len(ids), num_output)
                        return
                    if text:
                        yield Piece(text, tuple(pending), None, len(ids), num_output)
                        pending = []
                elif isinstance(event, Finished):
                    text = scanner.push(detokenizer.flush()) + scanner.flush()
                    reason = "stop" if scanner.is_stopped else event.reason
                    yield Piece(text, tuple(pending), reason, len(ids), num_output)
                    return
    finally:
        count_tokens(metrics, served.name, len(ids), num_output)
    raise UnavailableError(f"request {request.id} ended without a result")


async def generate_all(
    target: Target, ids: Sequence[int], sampling: Sampling, stops: Sequence[str], metrics: Metrics
) -> Output:
    """The whole output at once."""
    texts: list[str] = []
    tokens: list[Token] = []
    async with aclosing(generate(target, ids, sampling, stops, metrics)) as pieces:
        async for piece in pieces:
            texts.append(piece.text)
            tokens += piece.tokens
            if piece.finish_reason is not None:
                return Output(
                    "".join(texts),
                    tuple(tokens),
                    piece.finish_reason,
                    piece.num_input_tokens,
                    piece.num_output_tokens,
                )
    raise UnavailableError("the generation ended without a reason")


def new_request(
    kind: RequestKind, target: Target, ids: Sequence[int], sampling: Sampling | None = None
) -> Request:
    """A core request with a fresh id, paid by the target's payer."""
    return Request(
        uuid.uuid4().hex,
        kind,
        target.digest,
        tuple(ids),
        sampling or Sampling(),
        tenant=target.payer,
    )


def observe_first(metrics: Metrics, backbone: str, started: float) -> None:
    """Record the time to the first token or score; ``started`` is a ``perf_counter`` value."""
    seconds = time.perf_counter() - started
    metrics.observe("patchbay_time_to_first_token_seconds", seconds, backbone=backbone)


def count_tokens(metrics: Metrics, backbone: str, num_input: int, num_output: int) -> None:
    """Count what one row read and wrote."""
    metrics.count("patchbay_tokens_total", num_input, backbone=backbone, direction="input")
    metrics.count("patchbay_tokens_total", num_output, backbone=backbone, direction="output")
