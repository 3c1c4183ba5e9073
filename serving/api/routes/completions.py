"""``POST /v1/completions``."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from serving.api.completion import CompletionForm
from serving.api.dependencies import Caller, ServiceOf, resolve_for
from serving.api.envelope import NotAvailableForError, request_id_of
from serving.api.generation import Piece, generate, generate_all
from serving.api.merge import merge
from serving.api.prompts import check_count, encode_prompt, make_sampling, run_all
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
    limits = service.config.limits
    check_count(len(body.prompts) * body.n, limits, "prompt")
    prompts = [await encode_prompt(target, prompt) for prompt in body.prompts]
    rows = [
        (ids, make_sampling(target, body, limits, index=index, logprobs=body.logprobs))
        for ids in prompts
        for index in range(body.n)
    ]
    form = CompletionForm(target, body.logprobs is not None)
    num_input = sum(len(ids) for ids in prompts)
    echoes = [_echo(target, body, prompt) for prompt in body.prompts for _ in range(body.n)]
    if body.stream:
        chunks = _chunks(service, target, body, rows, echoes, form, num_input)
        return await stream(chunks, target.headers, request_id_of(request))
    outputs = await run_all(
        [generate_all(target, ids, sampling, body.stops, service.metrics) for ids, sampling in rows]
    )
    return JSONResponse(form.whole(outputs, echoes, num_input), headers=target.headers)


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
    echoes: list[str],
    form: CompletionForm,
    num_input: int,
) -> AsyncGenerator[dict[str, Any], None]:
    outputs = [generate(target, ids, one, body.stops, service.metrics) for ids, one in rows]
    num_output = 0
    echoed: set[int] = set()
    async with aclosing(merge(outputs)) as pieces:
        async for index, piece in pieces:
            if echoes[index] and index not in echoed:
                echoed.add(index)
                yield form.chunk(index, Piece(echoes[index]))
            yield form.chunk(index, piece)
            num_output += piece.num_output_tokens if piece.finish_reason is not None else 0
    if body.stream_options is not None and body.stream_options.include_usage:
        yield form.usage_chunk(num_input, num_output)


def _echo(target: Target, body: CompletionBody, prompt: str | list[int]) -> str:
    if not body.echo:
        return ""
    return prompt if isinstance(prompt, str) else target.served.tokenizer.decode(prompt)
