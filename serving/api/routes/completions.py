"""``POST /v1/completions`` and ``POST /v1/chat/completions``."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from adapters_store.errors import UsageError
from serving.api.answering import Question, answer, check_target
from serving.api.chat import ChatForm, encode_chat
from serving.api.completion import CompletionForm, Echo
from serving.api.dependencies import Caller, ServiceOf, resolve_for
from serving.api.prompts import check_count, encode_prompt, settle_beams
from serving.api.resolver import Target
from serving.api.schemas import ChatBody, CompletionBody

router = APIRouter(tags=["OpenAI"])


@router.post("/v1/completions", summary="Complete prompts", response_model=None)
async def complete(
    body: CompletionBody, request: Request, service: ServiceOf, caller: Caller
) -> Response:
    """Answer every prompt ``n`` times, whole or as server-sent events."""
    target = await resolve_for(service, caller, body.model)
    check_target(target)
    num_candidates = body.best_of or body.n
    is_predicted = body.echo and not target.served.backbone.architecture.is_encoder_decoder
    prompt_logprobs = body.logprobs if is_predicted else None
    is_single = prompt_logprobs is None and num_candidates == body.n
    settle_beams(target, body, service.config.engine.max_rows, is_single=is_single)
    num_rows = len(body.prompts) * max(num_candidates, body.beams)
    check_count(num_rows, service.config.limits, "prompt")
    prompts = [await encode_prompt(target, prompt) for prompt in body.prompts]
    echoes = [
        _echo(target, body, prompt, ids)
        for prompt, ids in zip(body.prompts, prompts, strict=True)
        for _ in range(body.n)
    ]
    if prompt_logprobs is not None and body.beams > 1:
        raise UsageError(
            f"echo with logprobs and num_beams {body.beams}: a beam search of this backbone "
            "gives no log-probabilities of the prompt",
            hint="Leave out echo, logprobs or num_beams.",
            param="echo",
        )
    question = Question(
        body,
        prompts,
        num_candidates,
        logprobs=body.logprobs,
        prompt_logprobs=prompt_logprobs,
    )
    form = CompletionForm(target, body.logprobs is not None, echoes)
    return await answer(service, target, question, form, request)


@router.post("/v1/chat/completions", summary="Answer a conversation", response_model=None)
async def chat(body: ChatBody, request: Request, service: ServiceOf, caller: Caller) -> Response:
    """Answer the messages ``n`` times, whole or as server-sent events."""
    target = await resolve_for(service, caller, body.model)
    check_target(target)
    settle_beams(target, body, service.config.engine.max_rows, is_single=True)
    check_count(max(body.n, body.beams), service.config.limits, "n")
    ids = await encode_chat(target, body.messages)
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    question = Question(body, [ids], body.n, logprobs=logprobs)
    return await answer(service, target, question, ChatForm(target, body.logprobs), request)


def _echo(
    target: Target, body: CompletionBody, prompt: str | list[int], ids: tuple[int, ...]
) -> Echo:
    """The prompt as it was given, or, beside log-probabilities, as the model reads it."""
    if not body.echo:
        return Echo()
    if isinstance(prompt, str) and body.logprobs is None:
        return Echo(prompt)
    return Echo.of(target.served.tokenizer, ids)
