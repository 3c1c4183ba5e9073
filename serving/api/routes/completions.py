"""``POST /v1/completions``."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from serving.api.completion import CompletionForm, Echo
from serving.api.dependencies import Caller, ServiceOf, resolve_for
from serving.api.envelope import NotAvailableForError, request_id_of
from serving.api.generation import Output, generate, generate_all
from serving.api.merge import merge
from serving.api.prompts import (
    check_count,
    encode_prompt,
    make_ending,
    make_sampling,
    run_all,
    while_connected,
)
from serving.api.resolver import Target
from serving.api.schemas import CompletionBody
from serving.api.service import Service
from serving.api.sse import stream
from serving.engine.request import Sampling

router = APIRouter(tags=["OpenAI"])


@router.post("/v1/completions", summary="Complete prompts", response_model=None)
async def complete(
    body: CompletionBody, request: Request, service: ServiceOf, caller: Caller
) -> Response:
    """Answer every prompt ``n`` times, whole or as server-sent events."""
    target = await resolve_for(service, caller, body.model)
    check_target(target)
    num_rows = max(body.n, body.best_of or 1, body.num_beams)
    check_count(len(body.prompts) * num_rows, service.config.limits, "prompt")
    prompts = [await encode_prompt(target, prompt) for prompt in body.prompts]
    rows = _rows(service, target, body, prompts)
    echoes = [
        _echo(target, body, prompt, ids)
        for prompt, ids in zip(body.prompts, prompts, strict=True)
        for _ in range(body.n)
    ]
    form = CompletionForm(target, body.logprobs is not None, echoes)
    num_input = sum(len(ids) for ids in prompts)
    if body.stream:
        chunks = _chunks(service, target, body, rows, form, num_input)
        return await stream(chunks, target.headers, request_id_of(request))
    ending = make_ending(body)
    calls = [generate_all(target, ids, one, ending, service.metrics) for ids, one in rows]
    found = await while_connected(request, run_all(calls))
    num_output = sum(one.num_output_tokens for outputs in found for one in outputs)
    return JSONResponse(
        form.whole(_chosen(found, body), num_input, num_output), headers=target.headers
    )


def _rows(
    service: Service, target: Target, body: CompletionBody, prompts: list[tuple[int, ...]]
) -> list[tuple[tuple[int, ...], Sampling]]:
    """Input and settings of every row: one for each output, or one for each beam search."""
    is_search = body.num_beams > 1
    ranks = body.best_of is not None and body.best_of > body.n
    logprobs = body.logprobs or 0 if ranks else body.logprobs
    reads_prompt = target.served.backbone.architecture.is_encoder_decoder
    return [
        (
            ids,
            make_sampling(
                target,
                body,
                service.config.limits,
                index=index,
                num_sequences=body.n if is_search else 1,
                logprobs=logprobs,
                prompt_logprobs=body.logprobs if body.echo and not reads_prompt else None,
            ),
        )
        for ids in prompts
        for index in range(1 if is_search else body.best_of or body.n)
    ]


def _chosen(found: list[list[Output]], body: CompletionBody) -> dict[int, Output]:
    """Outputs by choice: of every ``best_of`` the likeliest ``n``, by log-probability per token."""
    per_prompt = len(found) // len(body.prompts)
    chosen: dict[int, Output] = {}
    for number in range(len(body.prompts)):
        rows = found[number * per_prompt : (number + 1) * per_prompt]
        outputs = [one for outputs in rows for one in outputs]
        if len(outputs) > body.n:
            outputs = sorted(outputs, key=lambda one: -one.mean_logprob)[: body.n]
        chosen |= {number * body.n + place: one for place, one in enumerate(outputs)}
    return chosen


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


async def _chunks(
    service: Service,
    target: Target,
    body: CompletionBody,
    rows: list[tuple[tuple[int, ...], Sampling]],
    form: CompletionForm,
    num_input: int,
) -> AsyncGenerator[dict[str, Any], None]:
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
        yield form.usage_chunk(num_input, num_output)


def _echo(
    target: Target, body: CompletionBody, prompt: str | list[int], ids: tuple[int, ...]
) -> Echo:
    """The prompt as it was given, or, beside log-probabilities, as the model reads it."""
    if not body.echo:
        return Echo()
    if isinstance(prompt, str) and body.logprobs is None:
        return Echo(prompt)
    return Echo.of(target.served.tokenizer, ids)
