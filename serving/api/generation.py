"""The outputs of one row: tokens from the core become text, stop strings end it."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from adapters_store.errors import UnavailableError
from serving.api.resolver import Target
from serving.api.writing import Ending, Writer, Written
from serving.engine.events import Finished, Prompt, Searched, Token
from serving.engine.request import Request, RequestKind, Sampling
from serving.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that is safe to give out, and the tokens that came since the piece before.

    ``sequence`` numbers the outputs of a beam search; ``prompt`` comes once, with the first piece,
    where its log-probabilities were asked for. ``finish_reason`` (``stop`` or ``length``) is set
    on an output's last piece alone. Counts are totals of the output.
    """

    text: str
    tokens: tuple[Written, ...] = ()
    finish_reason: str | None = None
    num_input_tokens: int = 0
    num_output_tokens: int = 0
    sequence: int = 0
    prompt: tuple[Token, ...] = ()


@dataclass(frozen=True, slots=True)
class Output:
    """A finished generation."""

    text: str
    tokens: tuple[Written, ...]
    finish_reason: str
    num_input_tokens: int
    num_output_tokens: int
    prompt: tuple[Token, ...] = ()

    @property
    def mean_logprob(self) -> float:
        """Log-probability per token; minus infinity for an empty output."""
        known = [one.token.logprob for one in self.tokens if one.token.logprob is not None]
        return sum(known) / len(known) if known else float("-inf")


async def generate(
    target: Target, ids: Sequence[int], sampling: Sampling, ending: Ending, metrics: Metrics
) -> AsyncGenerator[Piece, None]:
    """Pieces of one output, or of all outputs of a beam search; raises what the core reports.

    No piece is empty but an output's last and one that brings the prompt.
    """
    served = target.served
    request = new_request("generate", target, ids, sampling)
    started, num_output = time.perf_counter(), 0
    writer = Writer(served.tokenizer, ending)
    try:
        async with aclosing(served.core.generate(request)) as events:
            async for event in events:
                if isinstance(event, Token):
                    if num_output == 0:
                        observe_first(metrics, served.name, started)
                    num_output += 1
                    text = writer.push(event)
                    if writer.is_stopped:
                        yield Piece(text, writer.take(), "stop", len(ids), num_output)
                        return
                    if text:
                        yield Piece(text, writer.take(), None, len(ids), num_output)
                elif isinstance(event, Prompt):
                    yield Piece("", prompt=event.tokens)
                elif isinstance(event, Searched):
                    observe_first(metrics, served.name, started)
                    num_output = event.num_output_tokens
                    for piece in _sequences(target, event, ending):
                        yield piece
                    return
                elif isinstance(event, Finished):
                    text = writer.flush()
                    reason = "stop" if writer.is_stopped else event.reason
                    yield Piece(text, writer.take(), reason, len(ids), num_output)
                    return
    finally:
        count_tokens(metrics, served.name, len(ids), num_output)
    raise UnavailableError(f"request {request.id} ended without a result")


def _sequences(target: Target, event: Searched, ending: Ending) -> list[Piece]:
    """One piece for each sequence of a beam search."""
    pieces = []
    for number, found in enumerate(event.hypotheses):
        writer = Writer(target.served.tokenizer, ending)
        texts: list[str] = []
        for token in found.tokens:
            texts.append(writer.push(token))
            if writer.is_stopped:
                break
        texts.append("" if writer.is_stopped else writer.flush())
        reason = "stop" if writer.is_stopped else found.reason
        count = len(found.tokens)
        pieces.append(
            Piece("".join(texts), writer.take(), reason, event.num_input_tokens, count, number)
        )
    return pieces


async def generate_all(
    target: Target, ids: Sequence[int], sampling: Sampling, ending: Ending, metrics: Metrics
) -> list[Output]:
    """The whole output at once, or every output of a beam search, best first."""
    outputs: list[Output] = []
    texts: list[str] = []
    tokens: list[Written] = []
    prompt: tuple[Token, ...] = ()
    async with aclosing(generate(target, ids, sampling, ending, metrics)) as pieces:
        async for piece in pieces:
            texts.append(piece.text)
            tokens += piece.tokens
            prompt = prompt or piece.prompt
            if piece.finish_reason is not None:
                outputs.append(
                    Output(
                        "".join(texts),
                        tuple(tokens),
                        piece.finish_reason,
                        piece.num_input_tokens,
                        piece.num_output_tokens,
                        prompt,
                    )
                )
                texts, tokens = [], []
    return outputs


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
