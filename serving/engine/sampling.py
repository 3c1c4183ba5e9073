"""How one row chooses its tokens."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
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
    What follows is as in transformers. No n-gram of ``no_repeat_ngram_size`` tokens comes twice in
    the decoder's sequence (0 allows it), none of the token sequences ``bad_words_ids`` is
    completed. ``forced_bos_token_id`` is the first token where the decoder has read one token
    before it, one of ``forced_eos_token_ids`` the last that ``max_tokens`` allows.
    ``suppress_tokens`` are never written, ``begin_suppress_tokens`` not at the first place, behind
    what is forced there. A row that is left without a candidate fails.

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
    no_repeat_ngram_size: int = 0
    bad_words_ids: tuple[tuple[int, ...], ...] = ()
    forced_bos_token_id: int | None = None
    forced_eos_token_ids: tuple[int, ...] = ()
    suppress_tokens: tuple[int, ...] = ()
    begin_suppress_tokens: tuple[int, ...] = ()
    ignore_eos: bool = False
    stop_token_ids: tuple[int, ...] = ()
    logprobs: int | None = None
    prompt_logprobs: int | None = None
    num_beams: int = 1
    num_sequences: int = 1
    length_penalty: float = 1.0
    early_stopping: EarlyStopping = False

    def __post_init__(self) -> None:
        wrong = [(name, expected) for name, is_right, expected in self._checks() if not is_right]
        if wrong:
            problems = [
                f"{name} is {getattr(self, name)!r:.200}; expected {expected}"
                for name, expected in wrong
            ]
            raise UsageError("; ".join(problems), param=wrong[0][0])

    @property
    def has_penalties(self) -> bool:
        """True when what was written changes what comes next."""
        is_neutral = self.repetition_penalty == 1
        return not is_neutral or self.frequency_penalty != 0 or self.presence_penalty != 0

    @property
    def has_masks(self) -> bool:
        """True when some tokens are forced or suppressed."""
        forced = self.forced_bos_token_id is not None or self.forced_eos_token_ids
        return bool(forced or self.suppress_tokens or self.begin_suppress_tokens)

    @property
    def token_ids(self) -> dict[str, tuple[int, ...]]:
        """Every token id that the caller named, by parameter."""
        forced = self.forced_bos_token_id
        return {
            "logit_bias": tuple(token for token, _ in self.logit_bias),
            "allowed_token_ids": self.allowed_token_ids,
            "stop_token_ids": self.stop_token_ids,
            "bad_words_ids": tuple(token for word in self.bad_words_ids for token in word),
            "forced_bos_token_id": () if forced is None else (forced,),
            "forced_eos_token_ids": self.forced_eos_token_ids,
            "suppress_tokens": self.suppress_tokens,
            "begin_suppress_tokens": self.begin_suppress_tokens,
        }

    def _checks(self) -> list[tuple[str, bool, str]]:
        """Name, whether its value is possible, and what would be."""
        biased = [token for token, _ in self.logit_bias]
        shifts = [value for _, value in self.logit_bias]
        within = f"within {MAX_SHIFT:g} of 0"
        k = self.num_beams
        return [
            ("max_tokens", self.max_tokens >= 1, "at least 1"),
            ("temperature", 0 <= self.temperature < inf, "at least 0"),
            ("temperature", k == 1 or self.temperature == 0, "0: beam search does not sample"),
            ("top_k", self.top_k >= 0, "at least 0"),
            ("top_p", 0 < self.top_p <= 1, "above 0 and at most 1"),
            ("min_p", 0 <= self.min_p <= 1, "0 to 1"),
            ("logit_bias", len(set(biased)) == len(biased), "every token once"),
            ("logit_bias", all(abs(value) <= MAX_SHIFT for value in shifts), f"values {within}"),
            ("repetition_penalty", 0.01 <= self.repetition_penalty <= 100, "0.01 to 100"),
            ("frequency_penalty", abs(self.frequency_penalty) <= MAX_SHIFT, within),
            ("presence_penalty", abs(self.presence_penalty) <= MAX_SHIFT, within),
            ("min_tokens", 0 <= self.min_tokens <= self.max_tokens, "0 to max_tokens"),
            ("no_repeat_ngram_size", self.no_repeat_ngram_size >= 0, "at least 0"),
            ("bad_words_ids", all(self.bad_words_ids), "no empty sequence"),
            ("logprobs", (self.logprobs or 0) >= 0, "at least 0"),
            ("prompt_logprobs", (self.prompt_logprobs or 0) >= 0, "at least 0"),
            ("prompt_logprobs", k == 1 or self.prompt_logprobs is None, "none with beam search"),
            ("num_beams", k >= 1, "at least 1"),
            ("num_sequences", 1 <= self.num_sequences <= max(1, k), "1 to num_beams"),
            ("length_penalty", abs(self.length_penalty) <= 10, "-10 to 10"),
            (
                "early_stopping",
                self.early_stopping in (True, False, "never"),
                "true, false or 'never'",
            ),
        ]


GREEDY = Sampling()
