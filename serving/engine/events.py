"""What a step reports about its rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Reason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True, slots=True)
class Token:
    """One generated token; ``logprob`` and ``top`` (token, log-probability) when asked for.

    The end-of-sequence token ends a row and is no event, unless ``ignore_eos`` is set.
    """

    id: str
    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Prompt:
    """The prompt's tokens with their log-probabilities; the first has none. Comes once, first."""

    id: str
    tokens: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    """A generation ended; ``num_output_tokens`` equals the number of its Token events."""

    id: str
    reason: Reason
    num_input_tokens: int
    num_output_tokens: int


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One sequence of a beam search; ``score`` is its length-penalised log-probability."""

    tokens: tuple[Token, ...]
    score: float
    reason: Reason


@dataclass(frozen=True, slots=True)
class Searched:
    """A beam search ended: its best sequences, best first."""

    id: str
    hypotheses: tuple[Hypothesis, ...]
    num_input_tokens: int
    num_output_tokens: int


@dataclass(frozen=True, slots=True)
class Scored:
    """Logits of the row's own head, in the order of its labels."""

    id: str
    scores: list[float]
    num_input_tokens: int


@dataclass(frozen=True, slots=True)
class Embedded:
    """Mean-pooled, L2-normalised last hidden state."""

    id: str
    vector: list[float]
    num_input_tokens: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A row that ended with an error; ``code`` and ``param`` are those of a typed error."""

    id: str
    code: str
    message: str
    param: str | None = None


Last = Finished | Searched | Scored | Embedded | Failed
Event = Token | Prompt | Last
