"""OpenAI's completion objects: choices, chunks, usage and log-probabilities."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from serving.api.generation import Output, Piece
from serving.api.resolver import Target
from serving.api.text import Tokenizer
from serving.api.writing import Ending, Writer, Written
from serving.engine.events import Token


@dataclass(frozen=True, slots=True)
class Echo:
    """The prompt as it precedes an output: its text, and its tokens with their offsets."""

    text: str = ""
    tokens: tuple[Written, ...] = ()

    @classmethod
    def of(cls, tokenizer: Tokenizer, ids: Sequence[int]) -> Echo:
        """What the model reads."""
        writer = Writer(tokenizer, Ending())
        text = "".join([writer.push(Token("", token)) for token in ids]) + writer.flush()
        return cls(text, writer.take())

    def scored(self, prompt: Sequence[Token]) -> tuple[Written, ...]:
        """The tokens with the log-probabilities of ``prompt``; without any where it is empty."""
        if not prompt:
            return self.tokens
        pairs = zip(self.tokens, prompt, strict=True)
        return tuple(Written(token, one.offset) for one, token in pairs)


class CompletionForm:
    """Fills in one request's answer, whole or in chunks; ``echoes`` has one for each choice."""

    def __init__(self, target: Target, has_logprobs: bool, echoes: Sequence[Echo]) -> None:
        self._target, self._has_logprobs, self._echoes = target, has_logprobs, echoes
        self._echoed: set[int] = set()
        self._head = {
            "id": f"cmpl-{uuid.uuid4().hex}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": target.asked,
            "system_fingerprint": target.served.fingerprint,
        }

    def whole(
        self, outputs: Mapping[int, Output], num_input: int, num_output: int
    ) -> dict[str, Any]:
        """The body of an answer; ``outputs`` by the index of the choice."""
        choices = []
        for index, one in outputs.items():
            echo = self._echoes[index]
            entries = self._logprobs(echo.scored(one.prompt), one.tokens, len(echo.text))
            choices.append(_choice(index, echo.text + one.text, entries, one.finish_reason))
        return {**self._head, "choices": choices, "usage": usage(num_input, num_output)}

    def chunks(self, index: int, piece: Piece) -> list[dict[str, Any]]:
        """The chunks of one piece, after that of the echo; pieces of a choice come in order."""
        echo = self._echoes[index]
        made = []
        if index not in self._echoed:
            self._echoed.add(index)
            if echo.tokens or echo.text:
                entries = self._logprobs(echo.scored(piece.prompt))
                made.append(_choice(index, echo.text, entries, None))
        if piece.text or piece.finish_reason is not None:
            entries = self._logprobs((), piece.tokens, len(echo.text))
            made.append(_choice(index, piece.text, entries, piece.finish_reason))
        return [{**self._head, "choices": [choice]} for choice in made]

    def usage_chunk(self, num_input: int, num_output: int) -> dict[str, Any]:
        """The last chunk of a stream that asked for usage."""
        return {**self._head, "choices": [], "usage": usage(num_input, num_output)}

    def _logprobs(
        self, first: Sequence[Written], then: Sequence[Written] = (), shift: int = 0
    ) -> dict[str, Any] | None:
        """Of the tokens ``first`` and ``then``; the text of the latter begins at ``shift``."""
        if not self._has_logprobs:
            return None
        tokenizer = self._target.served.tokenizer
        tokens = [one.token for one in (*first, *then)]
        offsets = [one.offset for one in first] + [one.offset + shift for one in then]
        return {
            "tokens": [tokenizer.token_text(one.token) for one in tokens],
            "token_logprobs": [one.logprob for one in tokens],
            "top_logprobs": [_top(one, tokenizer) for one in tokens],
            "text_offset": offsets,
        }


def _choice(
    index: int, text: str, logprobs: dict[str, Any] | None, reason: str | None
) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": logprobs, "finish_reason": reason}


def _top(token: Token, tokenizer: Tokenizer) -> dict[str, float] | None:
    """The likeliest tokens and the token itself; None where it was read, not scored."""
    if token.logprob is None:
        return None
    likeliest = [*token.top, (token.token, token.logprob)]
    return {tokenizer.token_text(other): value for other, value in reversed(likeliest)}


def usage(num_input: int, num_output: int) -> dict[str, int]:
    """Token counts of a request."""
    return {
        "prompt_tokens": num_input,
        "completion_tokens": num_output,
        "total_tokens": num_input + num_output,
    }
