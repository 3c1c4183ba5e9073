"""From what a caller wrote to what the engine runs: prompts to ids, parameters to sampling."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from fastapi import Request

from adapters_store.errors import UsageError
from serving.api.envelope import ClientLeftError
from serving.api.resolver import Target
from serving.api.sampling_body import SamplingBody
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


_STATED = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "min_tokens",
    "no_repeat_ngram_size",
    "forced_bos_token_id",
    "length_penalty",
    "early_stopping",
)
"""Fields that bodies and :class:`Sampling` have alike."""


def settle_beams(target: Target, body: SamplingBody, max_rows: int, *, is_single: bool) -> None:
    """Let a body that does not say so search with as many beams as the backbone's folder wants.

    That is where it samples nothing, asks for no more outputs than beams, and where the engine's
    ``max_rows`` allow it; ``is_single`` says that it wants nothing a search does not give.
    """
    wanted = int(target.served.defaults.values.get("num_beams", 1))
    is_free = body.num_beams is None and not body.temperature and is_single
    if is_free and 1 < wanted <= max_rows and getattr(body, "n", 1) <= wanted:
        body.num_beams = wanted


def make_sampling(
    target: Target,
    body: SamplingBody,
    limits: LimitsSection,
    *,
    num_input: int,
    index: int = 0,
    num_sequences: int = 1,
    logprobs: int | None = None,
    prompt_logprobs: int | None = None,
) -> Sampling:
    """Sampling of the ``index``-th output of a prompt; a seed gives each output its own.

    What the body leaves out is as the backbone's folder says.
    """
    signature = target.signature
    default = limits.default_output_tokens if signature is None else signature.max_output_tokens
    said = {name: getattr(body, name) for name in _STATED if getattr(body, name) is not None}
    for name in ("suppress_tokens", "begin_suppress_tokens"):
        if getattr(body, name) is not None:
            said[name] = tuple(getattr(body, name))
    if body.bad_words_ids is not None:
        said["bad_words_ids"] = tuple(tuple(word) for word in body.bad_words_ids)
    if body.forced_eos_token_id is not None:
        said["forced_eos_token_ids"] = (body.forced_eos_token_id,)
    return target.served.defaults.sampling(
        num_input,
        **said,
        max_tokens=default if body.max_tokens is None else body.max_tokens,
        seed=None if body.seed is None else (body.seed + index) % 2**63,
        logit_bias=body.biases,
        allowed_token_ids=tuple(body.allowed_token_ids or ()),
        ignore_eos=body.ignore_eos,
        stop_token_ids=tuple(body.stop_token_ids),
        logprobs=logprobs,
        prompt_logprobs=prompt_logprobs,
        num_beams=body.beams,
        num_sequences=num_sequences,
    )


def make_ending(body: SamplingBody) -> Ending:
    """Where texts end besides at the model's own end."""
    return Ending(body.stops, body.include_stop_str_in_output, body.min_tokens or 0)


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
