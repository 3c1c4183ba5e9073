"""What a request must satisfy before it is queued."""

from __future__ import annotations

from typing import get_args

from adapters_store.errors import UsageError
from adapters_store.families.architecture import Architecture, Stack
from serving.engine.config import EngineConfig
from serving.engine.offsets import NO_PLACES, Offsets
from serving.engine.request import RequestKind
from serving.engine.row import Row


def check(row: Row, architecture: Architecture, config: EngineConfig, *, is_known: bool) -> None:
    """Raise :class:`UsageError` with the first problem of a new row's request."""
    problem, param = _problem(row, architecture, config), None
    if problem is None and row.request.kind == "generate":
        problem, param = _generation_problem(row, architecture, config)
    if is_known:
        problem, param = f"request id {row.request.id!r} is already in use", None
    if problem:
        raise UsageError(problem, param=param)


def misfit(row: Row, architecture: Architecture) -> str | None:
    """Why a row does not fit behind what its adapter puts before it; None where it does."""
    limit, places = architecture.max_positions, row.place()
    if limit is None or places == NO_PLACES:
        return None
    stack = architecture.stacks[0]
    max_tokens = row.request.sampling.max_tokens if row.request.kind == "generate" else 0
    needed = row.num_read + _offset(stack, places.reader)
    if architecture.is_encoder_decoder:
        writer = places.writer
        own = writer.num_prompt + _offset(architecture.stack("decoder"), writer) + max_tokens
        needed = max(needed, own)
    else:
        needed += max_tokens
    if needed <= limit:
        return None
    return (
        f"with its adapter's prefixes and prompts the request has up to {needed} positions; this "
        f"backbone takes {limit}"
    )


def _offset(stack: Stack, offsets: Offsets) -> int:
    return offsets.rotary if stack.embedding.position_path is None else offsets.table


def _problem(row: Row, architecture: Architecture, config: EngineConfig) -> str | None:
    request = row.request
    limit = min(config.max_input_tokens, architecture.max_positions or config.max_input_tokens)
    if request.kind not in get_args(RequestKind):
        return f"kind is {request.kind!r}; known: {', '.join(get_args(RequestKind))}"
    if not 0 < row.num_input <= limit:
        return f"the input has {row.num_input} tokens; expected 1 to {limit}"
    if not all(0 <= token < architecture.vocab_size for token in request.input_ids):
        return f"a token id is outside the vocabulary of {architecture.vocab_size}"
    if request.kind == "classify" and request.adapter is None:
        return "classification needs an adapter with a head; the bare backbone has none"
    return None


def _generation_problem(
    row: Row, architecture: Architecture, config: EngineConfig
) -> tuple[str | None, str | None]:
    """What is wrong with the sampling, and its parameter where it is one alone."""
    sampling = row.request.sampling
    if not architecture.can_generate:
        return "this backbone has no decoder; it serves classify and embed", None
    if sampling.max_tokens > config.max_output_tokens:
        limit = config.max_output_tokens
        return f"max_tokens is {sampling.max_tokens}; the limit is {limit}", "max_tokens"
    if sampling.prompt_logprobs is not None and not architecture.is_decoder_only:
        reason = "this backbone's encoder reads the prompt and predicts none of it"
        return f"prompt_logprobs: {reason}", "prompt_logprobs"
    if row.width > config.max_rows:
        reason = f"the engine decodes {config.max_rows} rows together"
        return f"num_beams is {row.width}; {reason}", "num_beams"
    for name, ids in sampling.token_ids.items():
        for token in ids:
            if not 0 <= token < architecture.vocab_size:
                size = architecture.vocab_size
                return f"{name} names token {token}, outside the vocabulary of {size}", name
    allowed = frozenset(sampling.allowed_token_ids)
    if allowed and sampling.min_tokens > 0 and allowed <= row.ends:
        reason = "allowed_token_ids only end the row, which min_tokens forbids"
        return reason, "allowed_token_ids"
    if architecture.max_positions is not None:
        own = row.num_input if architecture.is_decoder_only else 0
        if own + sampling.max_tokens > architecture.max_positions:
            reason = f"this backbone takes {architecture.max_positions}"
            needed = f"{own} + {sampling.max_tokens}"
            return f"input and answer have up to {needed} tokens; {reason}", "max_tokens"
    return None, None
