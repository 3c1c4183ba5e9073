"""OpenAI's completion objects: choices, chunks, usage and log-probabilities."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from typing import Any

from serving.api.generation import Output, Piece
from serving.api.resolver import Target
from serving.api.text import Tokenizer
from serving.engine.events import Token


class CompletionForm:
    """Fills in one request's answer, whole or in chunks."""

    def __init__(self, target: Target, has_logprobs: bool) -> None:
        self._target, self._has_logprobs = target, has_logprobs
        self._offsets: dict[int, int] = {}
        self._head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": target.asked,
            "system_fingerprint": target.served.fingerprint,
        }

    def whole(
        self, outputs: Sequence[Output], echoes: Sequence[str], num_input: int
    ) -> dict[str, Any]:
        """The body of an answer; ``echoes`` holds what precedes each output's text."""
        choices = [
            self._choice(index, echo + one.text, one.tokens, one.finish_reason)
            for index, (one, echo) in enumerate(zip(outputs, echoes, strict=True))
        ]
        num_output = sum(one.num_output_tokens for one in outputs)
        return {**self._head, "choices": choices, "usage": usage(num_input, num_output)}

    def chunk(self, index: int, piece: Piece) -> dict[str, Any]:
        """One chunk of a stream; chunks of a choice must be made in order."""
        choice = self._choice(index, piece.text, piece.tokens, piece.finish_reason)
        return {**self._head, "choices": [choice]}

    def usage_chunk(self, num_input: int, num_output: int) -> dict[str, Any]:
        """The last chunk of a stream that asked for usage."""
        return {**self._head, "choices": [], "usage": usage(num_input, num_output)}

    def _choice(
        self, index: int, text: str, tokens: Sequence[Token], reason: str | None
    ) -> dict[str, Any]:
        logprobs = None
        if self._has_logprobs:
            offset = self._offsets.get(index, 0)
            logprobs, self._offsets[index] = _logprobs(
                tokens, self._target.served.tokenizer, offset
            )
        return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": reason}


def usage(num_input: int, num_output: int) -> dict[str, int]:
    """Token counts of a request."""
    return {
        "prompt_tokens": num_input,
        "completion_tokens": num_output,
        "total_tokens": num_input + num_output,
    }


def _logprobs(
    tokens: Sequence[Token], tokenizer: Tokenizer, offset: int
) -> tuple[dict[str, Any], int]:
    texts = [tokenizer.token_text(token.token) for token in tokens]
    offsets: list[int] = []
    for text in texts:
        offsets.append(offset)
        offset += len(text)
    return {
        "tokens": texts,
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [
            {tokenizer.token_text(other): value for other, value in token.top} for token in tokens
        ],
        "text_offset": offsets,
    }, offset
