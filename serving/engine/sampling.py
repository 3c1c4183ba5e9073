"""How one row chooses its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, isfinite
from typing import Literal

from adapters_store.errors import UsageError

EarlyStopping = bool | Literal["never"]
MAX_SHIFT = 1000.0


@dataclass(frozen=True, slots=True)
class Sampling:
    """Limits, filters, penalties and endings of one row, in the order in which they act.

    ``logit_bias`` adds to the logits of (token, value) pairs. ``repetition_penalty`` divides
    positive and multiplies negative logits of tokens that the row has read in its own decoder:
    those written, the decoder's start token, and for decoder-only models the prompt.
    ``frequency_penalty`` subtracts itself once per time a token was written, ``presence_penalty``
    once if it was written at all; the prompt does not count. ``allowed_token_ids``, unless empty,
    are the only candidates; what ends the row is no candidate before ``min_tokens``.

    ``temperature`` 0 is greedy and ignores what follows. ``top_k`` 0, ``top_p`` 1 and ``min_p`` 0
    keep all tokens; they act in this order, and tokens that tie with the last one are kept.
    ``seed`` makes a sampled row repeatable, whoever shares its batch.

    The backbone's end tokens, unless ``ignore_eos``, and ``stop_token_ids`` end the row and are
    not given out. ``logprobs`` asks for that many most likely tokens with every token, by the
    model's own distribution before all of the above; ``prompt_logprobs`` for the same of the
    prompt (decoder-only models). None asks for none.

    ``num_beams`` above 1 is beam search, which gives the best ``num_sequences`` at the end; a
    score is the sum of log-probabilities over length ** ``length_penalty``, and
    ``early_stopping`` is as in transformers. Raises :class:`UsageError` on impossible values.
    """

    max_tokens: int = 64
    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None
    logit_bias: tuple[tuple[int, float], ...] = ()
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    allowed_token_ids: tuple[int, ...] = ()
    min_tokens: int = 0
    ignore_eos: bool = False
    stop_token_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    num_beams: int = 1
    num_sequences: int = 1
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = False

    def __post_init__(self) -> None:
        problems = [message for is_wrong, message in self._checks() if is_wrong]
        if problems:
            raise UsageError("; ".join(problems))

    @property
    def has_penalties(self) -> bool:
        """True when what was written changes what comes next."""
        is_neutral = self.repetition_penalty == 1
        return not is_neutral or self.frequency_penalty != 0 or self.presence_penalty != 0

    @property
    def token_ids(self) -> tuple[int, ...]:
        """Every token id that the caller named."""
        biased = tuple(token for token, _ in self.logit_bias)
        return biased + self.allowed_token_ids + self.stop_token_ids

    def _checks(self) -> list[tuple[bool, str]]:
        biases = [value for _, value in self.logit_bias]
        shifts = (self.frequency_penalty, self.presence_penalty, *biases)
        return [
            (self.max_tokens < 1, f"max_tokens is {self.max_tokens}; expected at least 1"),
            _outside("temperature", self.temperature, 0, inf),
            (self.top_k < 0, f"top_k is {self.top_k}; expected at least 0"),
            (not 0 < self.top_p <= 1, f"top_p is {self.top_p}; expected above 0 and at most 1"),
            _outside("min_p", self.min_p, 0, 1),
            _outside("repetition_penalty", self.repetition_penalty, 0.01, 100),
            (
                not all(abs(shift) <= MAX_SHIFT for shift in shifts),
                f"a penalty or a logit_bias is not within {MAX_SHIFT:g} of 0",
            ),
            (
                len({token for token, _ in self.logit_bias}) < len(self.logit_bias),
                "logit_bias names a token twice",
            ),
            (
                not 0 <= self.min_tokens <= self.max_tokens,
                f"min_tokens is {self.min_tokens}; expected 0 to max_tokens {self.max_tokens}",
            ),
            ((self.logprobs or 0) < 0, f"logprobs is {self.logprobs}; expected at least 0"),
            (
                (self.prompt_logprobs or 0) < 0,
                f"prompt_logprobs is {self.prompt_logprobs}; expected at least 0",
            ),
            *self._beam_checks(),
        ]

    def _beam_checks(self) -> list[tuple[bool, str]]:
        return [
            (self.num_beams < 1, f"num_beams is {self.num_beams}; expected at least 1"),
            (
                not 1 <= self.num_sequences <= self.num_beams,
                f"num_sequences is {self.num_sequences}; expected 1 to num_beams {self.num_beams}",
            ),
            (
                not isfinite(self.length_penalty) or abs(self.length_penalty) > 100,
                f"length_penalty is {self.length_penalty}; expected -100 to 100",
            ),
            (
                self.early_stopping not in (True, False, "never"),
                f"early_stopping is {self.early_stopping!r}; expected true, false or 'never'",
            ),
            (
                self.num_beams > 1 and self.temperature > 0,
                "num_beams above 1 needs temperature 0: beam search does not sample",
            ),
            (
                self.num_beams > 1 and self.prompt_logprobs is not None,
                "num_beams above 1 cannot be combined with prompt_logprobs",
            ),
        ]


def _outside(name: str, value: float, low: float, high: float) -> tuple[bool, str]:
    is_inside = isfinite(value) and low <= value <= high
    bound = f"{low:g} to {high:g}" if isfinite(high) else f"at least {low:g}"
    return not is_inside, f"{name} is {value}; expected {bound}"


GREEDY = Sampling()
