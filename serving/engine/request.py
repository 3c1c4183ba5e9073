"""What a caller asks of the engine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from adapters_store.errors import UsageError

RequestKind = Literal["generate", "classify", "embed"]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How one row chooses tokens.

    ``temperature`` 0 is greedy. ``top_k`` 0 and ``top_p`` 1 keep all tokens. ``seed`` makes a
    sampled row repeatable, whoever shares its batch. ``logprobs`` asks for that many most likely
    tokens with every token; None asks for none. Raises :class:`UsageError` on impossible values.
    """

    max_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int | None = None
    ignore_eos: bool = False
    logprobs: int | None = None

    def __post_init__(self) -> None:
        wrong = [
            (self.max_tokens < 1, f"max_tokens is {self.max_tokens}; expected at least 1"),
            (not self.temperature >= 0, f"temperature is {self.temperature}; expected at least 0"),
            (self.top_k < 0, f"top_k is {self.top_k}; expected at least 0"),
            (not 0 < self.top_p <= 1, f"top_p is {self.top_p}; expected above 0 and at most 1"),
            ((self.logprobs or 0) < 0, f"logprobs is {self.logprobs}; expected at least 0"),
        ]
        problems = [message for is_wrong, message in wrong if is_wrong]
        if problems:
            raise UsageError("; ".join(problems))


@dataclass(frozen=True, slots=True)
class Request:
    """One row. ``adapter`` is an artefact digest, or None for the bare backbone."""

    id: str
    kind: RequestKind
    adapter: str | None
    input_ids: tuple[int, ...]
    sampling: Sampling = Sampling()
