"""From what a caller wrote to what the engine runs: prompts to ids, parameters to sampling."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from fastapi import Request

from adapters_store.errors import UsageError
from serving.api.envelope import ClientLeftError
from serving.api.resolver import Target
from serving.api.schemas import SamplingBody
from serving.api.writing import Ending
from serving.config import LimitsSection
from serving.engine.request import Sampling

Result = TypeVar("Result")


async def encode_prompt(
    target: Target, prompt: str | list[int], param: str = "prompt"
) -> tuple[int, ...]:
    """Token ids of one prompt; a text goes through the task's template first.

    Raises :class:`UsageError` for an empty prompt, ids outside the vocabulary, and inputs longer
    than the task's ``max_input_tokens``; ``param`` is the field that held the prompt.
    """
    served, signature = target.served, target.signature
    if isinstance(prompt, str):
        text = prompt if signature is None else signature.render(prompt)
        ids = await served.encode(text)
    else:
        ids = served.tokenizer.check(prompt)
    if not ids:
        raise UsageError("the prompt is empty", param=param)
    if signature is not None and len(ids) > signature.max_input_tokens:
        raise UsageError(
            f"the input has {len(ids)} tokens; {target.asked} takes {signature.max_input_tokens}",
            hint="Shorten the input.",
            param=param,
        )
    return ids


def make_sampling(
    target: Target,
    body: SamplingBody,
    limits: LimitsSection,
    *,
    index: int = 0,
    num_sequences: int = 1,
    logprobs: int | None = None,
    prompt_logprobs: int | None = None,
) -> Sampling:
    """Sampling of the ``index``-th output of a prompt; a seed gives each output its own."""
    signature = target.signature
    default = limits.default_output_tokens if signature is None else signature.max_output_tokens
    return Sampling(
        max_tokens=default if body.max_tokens is None else body.max_tokens,
        temperature=body.temperature or 0.0,
        top_k=body.top_k or 0,
        top_p=1.0 if body.top_p is None else body.top_p,
        min_p=body.min_p or 0.0,
        seed=None if body.seed is None else (body.seed + index) % 2**63,
        logit_bias=body.biases,
        repetition_penalty=1.0 if body.repetition_penalty is None else body.repetition_penalty,
        frequency_penalty=body.frequency_penalty or 0.0,
        presence_penalty=body.presence_penalty or 0.0,
        allowed_token_ids=tuple(body.allowed_token_ids or ()),
        min_tokens=body.min_tokens,
        ignore_eos=body.ignore_eos,
        stop_token_ids=tuple(body.stop_token_ids),
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        num_beams=body.num_beams,
        num_sequences=num_sequences,
        length_penalty=1.0 if body.length_penalty is None else body.length_penalty,
        early_stopping=False if body.early_stopping is None else body.early_stopping,
    )


def make_ending(body: SamplingBody) -> Ending:
    """Where texts end besides at the model's own end."""
    return Ending(body.stops, body.include_stop_str_in_output, body.min_tokens)


def check_count(num_rows: int, limits: LimitsSection, param: str) -> None:
    """Raise :class:`UsageError` when one request asks for more outputs than allowed."""
    if num_rows > limits.max_prompts:
        raise UsageError(
            f"the request asks for {num_rows} outputs; at most {limits.max_prompts} at once",
            hint="Send several requests; they share batches all the same.",
            param=param,
        )


async def while_connected(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of ``work``, which is cancelled as soon as the client closes the connection.

    Raises :class:`ClientLeftError` then. The body of ``request`` must have been read.
    """
    task = asyncio.create_task(work)
    leaving = asyncio.create_task(_left(request))
    try:
        await asyncio.wait({task, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientLeftError("the client closed the connection")
        return task.result()
    finally:
        task.cancel()
        leaving.cancel()
        await asyncio.gather(task, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        continue


async def run_all(calls: Sequence[Coroutine[Any, Any, Result]]) -> list[Result]:
    """Results in order; the first error cancels the others and is raised."""
    tasks = [asyncio.create_task(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
