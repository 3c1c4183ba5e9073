"""Beam search of one request: its beams are rows of the decode batch like any other.

The algorithm is that of transformers' ``generate(num_beams=k)``, score by score: candidates are
the best continuations of all beams, those that end become hypotheses, the best others go on.

Shapes: ``k`` beams, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from serving.engine.adjust import adjust, is_adjusted
from serving.engine.events import Hypothesis, Reason, Token
from serving.engine.row import Row
from serving.engine.sampler import describe
from serving.upload import upload

_OUT_OF_REACH = -1.0e9


@dataclass(frozen=True, slots=True)
class _Candidate:
    """Token ``token`` after beam ``parent``; ``score`` sums the log-probabilities so far."""

    parent: int
    token: int
    score: float


class Beams:
    """The beams of one request; ``rows[0]`` is the request's own row, the others are its copies.

    ``written`` are the tokens of each beam so far, with log-probabilities where asked for.
    """

    def __init__(self, row: Row) -> None:
        sampling = row.request.sampling
        self._sampling, self._ends = sampling, row.ends
        self.rows = [row, *(row.fork() for _ in range(sampling.num_beams - 1))]
        for one in self.rows:
            one.beams = self
        self.written: list[tuple[Token, ...]] = [() for _ in self.rows]
        self._scores = [0.0] + [_OUT_OF_REACH] * (len(self.rows) - 1)
        self._hypotheses: list[Hypothesis] = []

    @property
    def best(self) -> tuple[Hypothesis, ...]:
        """The hypotheses asked for, best first, once :meth:`advance` gave None."""
        return tuple(self._hypotheses[: self._sampling.num_sequences])

    def advance(self, logits_kV: Tensor) -> list[int] | None:
        """Choose every beam's next token and write it.

        Returns the beam whose keys and values each beam goes on from, or None when the search is
        over. The logits must be finite.
        """
        logprobs_kV = logits_kV.float().log_softmax(dim=1)
        adjusted_kV = logprobs_kV
        if any(is_adjusted(row) for row in self.rows):
            adjusted_kV = logprobs_kV.clone()
            adjust(adjusted_kV, self.rows)
        candidates = self._candidates(adjusted_kV)
        length = self.rows[0].num_output + 1
        is_last = length == self._sampling.max_tokens
        tokens = self._describe(logprobs_kV, candidates)
        self._finish(candidates[: len(self.rows)], tokens, length, is_last=is_last)
        going_on = [n for n, one in enumerate(candidates) if one.token not in self._ends]
        going_on = going_on[: len(self.rows)]
        if is_last or len(going_on) < len(self.rows):
            return None
        self._write([candidates[n] for n in going_on], [tokens[n] for n in going_on])
        if not self._can_improve(length):
            return None
        return [candidates[n].parent for n in going_on]

    def _candidates(self, logprobs_kV: Tensor) -> list[_Candidate]:
        k, V = logprobs_kV.shape
        total = logprobs_kV + upload(self._scores, logprobs_kV.device, logprobs_kV.dtype)[:, None]
        count = min(max(2, 1 + len(self._ends)) * k, k * V)
        top = total.view(-1).topk(count)
        return [
            _Candidate(index // V, index % V, score)
            for index, score in zip(top.indices.tolist(), top.values.tolist(), strict=True)
        ]

    def _describe(self, logprobs_kV: Tensor, candidates: Sequence[_Candidate]) -> list[Token]:
        name, count = self.rows[0].request.id, self._sampling.logprobs
        if count is None:
            return [Token(name, one.token) for one in candidates]
        parents = upload([one.parent for one in candidates], logprobs_kV.device)
        choices = describe(
            logprobs_kV.index_select(0, parents),
            [one.token for one in candidates],
            [count] * len(candidates),
        )
        return [Token(name, one.token, one.logprob, one.top) for one in choices]

    def _finish(
        self, best: Sequence[_Candidate], tokens: Sequence[Token], length: int, *, is_last: bool
    ) -> None:
        """Candidates among the best ``k`` that end become hypotheses, of which ``k`` are kept."""
        is_full = len(self._hypotheses) == len(self.rows)
        if is_full and self._sampling.early_stopping is True:
            return
        for one, token in zip(best, tokens, strict=False):
            is_end = one.token in self._ends
            if one.score < _OUT_OF_REACH / 2 or not (is_end or is_last):
                continue
            whole = self.written[one.parent] + (() if is_end else (token,))
            reason: Reason = "stop" if is_end else "length"
            score = one.score / length**self._sampling.length_penalty
            self._hypotheses.append(Hypothesis(whole, score, reason))
        self._hypotheses.sort(key=lambda one: -one.score)
        del self._hypotheses[len(self.rows) :]

    def _write(self, chosen: Sequence[_Candidate], tokens: Sequence[Token]) -> None:
        self._scores = [one.score for one in chosen]
        parents = [one.parent for one in chosen]
        self.written = [
            (*self.written[parent], token) for parent, token in zip(parents, tokens, strict=True)
        ]
        forks = [self.rows[parent].fork() for parent in parents]
        for row, fork, token in zip(self.rows, forks, tokens, strict=True):
            row.take_over(fork)
            row.write(token.token)

    def _can_improve(self, length: int) -> bool:
        """Whether a beam may still become better than the worst of ``k`` hypotheses."""
        if len(self._hypotheses) < len(self.rows):
            return True
        sampling = self._sampling
        if sampling.early_stopping is True:
            return False
        if sampling.early_stopping == "never" and sampling.length_penalty > 0:
            length = sampling.max_tokens
        possible: float = self._scores[0] / length**sampling.length_penalty
        return possible > self._hypotheses[-1].score
