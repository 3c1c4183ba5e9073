"""OpenAI's chat completions: messages to a prompt, outputs to messages."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from adapters_store.errors import UsageError
from serving.api.completion import usage
from serving.api.generation import Output, Piece
from serving.api.prompts import encode_prompt
from serving.api.resolver import Target
from serving.api.schemas import Message
from serving.api.text import Tokenizer
from serving.api.writing import Written


async def encode_chat(target: Target, messages: Sequence[Message]) -> tuple[int, ...]:
    """Token ids of a conversation that the assistant is to continue.

    A task reads a single message of the user through its own prompt template, as it reads a
    completion's prompt; all else goes through the backbone's chat template. Raises
    :class:`UsageError` where it has none, and as :func:`encode_prompt` does.
    """
    is_single = len(messages) == 1 and messages[0].role == "user"
    if target.signature is not None and is_single:
        return await encode_prompt(target, messages[0].text, "messages")
    tokenizer = target.served.tokenizer
    if not tokenizer.has_chat_template:
        raise UsageError(
            f"{target.served.name} has no chat template; without one, tasks answer a single "
            "message of the user, and backbones none",
            hint="Ask POST /v1/completions.",
            param="messages",
        )
    turns = [{"role": one.role, "content": one.text} for one in messages]
    return await encode_prompt(target, list(tokenizer.encode_chat(turns)), "messages")


class ChatForm:
    """Fills in one request's answer, whole or in chunks."""

    def __init__(self, target: Target, has_logprobs: bool) -> None:
        self._tokenizer, self._has_logprobs = target.served.tokenizer, has_logprobs
        self._begun: set[int] = set()
        self._head = {
            "id": f"chatcmpl-{uuid.uuid4().hex}",
            "created": int(time.time()),
            "model": target.asked,
            "system_fingerprint": target.served.fingerprint,
        }

    def whole(
        self, outputs: Mapping[int, Output], num_input: int, num_output: int
    ) -> dict[str, Any]:
        """The body of an answer; ``outputs`` by the index of the choice."""
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": one.text, "refusal": None},
                "logprobs": self._logprobs(one.tokens),
                "finish_reason": one.finish_reason,
            }
            for index, one in outputs.items()
        ]
        counts = usage(num_input, num_output)
        return {**self._head, "object": "chat.completion", "choices": choices, "usage": counts}

    def chunks(self, index: int, piece: Piece) -> list[dict[str, Any]]:
        """The chunk of one piece; a choice's first names its role."""
        role = {} if index in self._begun else {"role": "assistant"}
        self._begun.add(index)
        choice = {
            "index": index,
            "delta": {**role, "content": piece.text},
            "logprobs": self._logprobs(piece.tokens),
            "finish_reason": piece.finish_reason,
        }
        return [self._chunk([choice])]

    def usage_chunk(self, num_input: int, num_output: int) -> dict[str, Any]:
        """The last chunk of a stream that asked for usage."""
        return {**self._chunk([]), "usage": usage(num_input, num_output)}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        return {**self._head, "object": "chat.completion.chunk", "choices": choices}

    def _logprobs(self, tokens: Sequence[Written]) -> dict[str, Any] | None:
        if not self._has_logprobs:
            return None
        content = [
            {
                **_entry(self._tokenizer, one.token.token, one.token.logprob),
                "top_logprobs": [_entry(self._tokenizer, *other) for other in one.token.top],
            }
            for one in tokens
        ]
        return {"content": content, "refusal": None}


def _entry(tokenizer: Tokenizer, token: int, logprob: float | None) -> dict[str, Any]:
    return {
        "token": tokenizer.token_text(token),
        "logprob": logprob,
        "bytes": list(tokenizer.token_bytes(token)),
    }
