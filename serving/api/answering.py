"""From prompts to an answer: rows run, outputs are chosen, a form makes objects of them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Protocol

from fastapi import Request, Response
from fastapi.responses import JSONResponse

from serving.api.envelope import NotAvailableForError, request_id_of
from serving.api.generation import Output, Piece, generate, generate_all
from serving.api.merge import merge
from serving.api.prompts import make_ending, make_sampling, run_all, while_connected
from serving.api.resolver import Target
from serving.api.schemas import OutputsBody
from serving.api.service import Service
from serving.api.sse import stream
from serving.engine.request import Sampling

Row = tuple[tuple[int, ...], Sampling]


class Form(Protocol):
    """Makes the objects of one endpoint; choices are numbered over all prompts."""

    def whole(
        self, outputs: Mapping[int, Output], num_input: int, num_output: int
    ) -> dict[str, Any]: ...
    def chunks(self, index: int, piece: Piece) -> list[dict[str, Any]]: ...
    def usage_chunk(self, num_input: int, num_output: int) -> dict[str, Any]: ...


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a target: prompts as token ids, and how each is to be answered.

    ``logprobs`` and ``prompt_logprobs`` are as in :class:`Sampling`; ``num_candidates`` are the
    outputs of each prompt of which the likeliest ``body.n`` are given.
    """

    body: OutputsBody
    prompts: list[tuple[int, ...]]
    num_candidates: int
    logprobs: int | None = None
    prompt_logprobs: int | None = None

    @property
    def num_input(self) -> int:
        """Tokens of all prompts."""
        return sum(len(ids) for ids in self.prompts)


async def answer(
    service: Service, target: Target, question: Question, form: Form, request: Request
) -> Response:
    """Answer every prompt, whole or as server-sent events."""
    body, rows = question.body, _rows(service, target, question)
    if body.stream:
        chunks = _chunks(service, target, question, rows, form)
        return await stream(chunks, target.headers, request_id_of(request))
    ending = make_ending(body)
    calls = [generate_all(target, ids, one, ending, service.metrics) for ids, one in rows]
    found = await while_connected(request, run_all(calls))
    num_output = sum(one.num_output_tokens for outputs in found for one in outputs)
    content = form.whole(_chosen(found, question), question.num_input, num_output)
    return JSONResponse(content, headers=target.headers)


def check_target(target: Target) -> None:
    """Raise :class:`NotAvailableForError` for tasks and backbones that write no text."""
    signature = target.signature
    if not target.served.can_generate or (signature and signature.task == "embedding"):
        raise NotAvailableForError(
            f"{target.asked} does not write text",
            hint="Ask POST /v1/tasks/{tenant}/{name}/predict.",
            param="model",
        )
    if target.manifest is not None and target.manifest.head_part is not None:
        raise NotAvailableForError(
            f"{target.asked} scores labels with a head of its own",
            hint="Ask POST /v1/tasks/{tenant}/{name}/predict.",
            param="model",
        )


def _rows(service: Service, target: Target, question: Question) -> list[Row]:
    """Input and settings of every row: one for each output, or one for each beam search."""
    body, num_rows = question.body, question.num_candidates
    is_search = body.beams > 1
    logprobs = question.logprobs
    if num_rows > body.n and logprobs is None:
        logprobs = 0
    return [
        (
            ids,
            make_sampling(
                target,
                body,
                service.config.limits,
                num_input=len(ids),
                index=index,
                num_sequences=body.n if is_search else 1,
                logprobs=logprobs,
                prompt_logprobs=question.prompt_logprobs,
            ),
        )
        for ids in question.prompts
        for index in range(1 if is_search else num_rows)
    ]


def _chosen(found: list[list[Output]], question: Question) -> dict[int, Output]:
    """Outputs by choice: of a prompt's candidates the likeliest, by log-probability per token."""
    per_prompt, n = len(found) // len(question.prompts), question.body.n
    chosen: dict[int, Output] = {}
    for number in range(len(question.prompts)):
        rows = found[number * per_prompt : (number + 1) * per_prompt]
        outputs = [one for outputs in rows for one in outputs]
        if len(outputs) > n:
            outputs = sorted(outputs, key=lambda one: -one.mean_logprob)[:n]
        chosen |= {number * n + place: one for place, one in enumerate(outputs)}
    return chosen


async def _chunks(
    service: Service, target: Target, question: Question, rows: list[Row], form: Form
) -> AsyncGenerator[dict[str, Any], None]:
    body = question.body
    ending = make_ending(body)
    outputs = [generate(target, ids, one, ending, service.metrics) for ids, one in rows]
    num_output = 0
    async with aclosing(merge(outputs)) as pieces:
        async for number, piece in pieces:
            index = number * rows[number][1].num_sequences + piece.sequence
            for chunk in form.chunks(index, piece):
                yield chunk
            num_output += piece.num_output_tokens if piece.finish_reason is not None else 0
    if body.stream_options is not None and body.stream_options.include_usage:
        yield form.usage_chunk(question.num_input, num_output)
