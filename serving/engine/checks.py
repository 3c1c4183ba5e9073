"""What a request must satisfy before it is queued."""

from __future__ import annotations

from typing import get_args

from adapters_store.errors import UsageError
from adapters_store.families.architecture import Architecture
from serving.engine.config import EngineConfig
from serving.engine.request import Request, RequestKind


def check(
    request: Request, architecture: Architecture, config: EngineConfig, *, is_known: bool
) -> None:
    """Raise :class:`UsageError` with the first problem of ``request``."""
    problem = _problem(request, architecture, config)
    if is_known:
        problem = f"request id {request.id!r} is already in use"
    if problem:
        raise UsageError(problem)


def _problem(request: Request, architecture: Architecture, config: EngineConfig) -> str | None:
    limit = min(config.max_input_tokens, architecture.max_positions or config.max_input_tokens)
    num_input = len(request.input_ids)
    max_tokens = request.sampling.max_tokens
    if request.kind not in get_args(RequestKind):
        return f"kind is {request.kind!r}; known: {', '.join(get_args(RequestKind))}"
    if not 0 < num_input <= limit:
        return f"the input has {num_input} tokens; expected 1 to {limit}"
    if not all(0 <= token < architecture.vocab_size for token in request.input_ids):
        return f"a token id is outside the vocabulary of {architecture.vocab_size}"
    if request.kind == "classify" and request.adapter is None:
        return "classification needs an adapter with a head; the bare backbone has none"
    if request.kind == "generate" and architecture.decoder_start_token_id is None:
        return "this backbone has no decoder; it serves classify and embed"
    if request.kind == "generate" and max_tokens > config.max_output_tokens:
        return f"max_tokens is {max_tokens}; the limit is {config.max_output_tokens}"
    return None
