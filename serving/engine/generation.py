"""The rows that generate: they start, decode a token a step together, and leave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

import torch
from torch import Tensor

from adapters_store.families.architecture import Architecture
from serving.engine.answers import not_finite
from serving.engine.batch import DecodeBatch
from serving.engine.beams import Beams
from serving.engine.config import EngineConfig
from serving.engine.draw import select
from serving.engine.events import Event, Failed, Finished, Prompt, Reason, Searched, Token
from serving.engine.prefill import Encoded
from serving.engine.prompt_scores import score_prompts
from serving.engine.row import Row
from serving.engine.sampler import Choice, choose, finite_rows
from serving.engine.weights import Weights


class Generation:
    """Running rows by request id, and the batch that decodes them.

    ``totals`` counts what happens; ``charge`` is told the rows that got a token.
    """

    def __init__(
        self,
        weights: Weights,
        config: EngineConfig,
        architecture: Architecture,
        totals: Counter[str],
        charge: Callable[[Collection[Row]], None],
    ) -> None:
        self._architecture = architecture
        self._batch = DecodeBatch(weights, config)
        self._totals = totals
        self._charge = charge
        self.running: dict[str, Row] = {}
        self.batch_rows: Counter[int] = Counter()

    @property
    def num_rows(self) -> int:
        """Rows of the decode batch that are taken; a beam search takes several."""
        return sum(row.width for row in self.running.values())

    @property
    def table_bytes(self) -> int:
        """Bytes of the plan's row-ordered factors."""
        return self._batch.table_bytes

    @property
    def kv_bytes(self) -> int:
        """Bytes of the key/value slabs."""
        return self._batch.kv_bytes

    def drop(self, row: Row) -> None:
        """Take a running row out and free its memory."""
        with torch.inference_mode():
            self._leave(row, is_poisoned=False)

    def start(self, encoded: Encoded) -> list[Event]:
        """Let rows decode: from the start token, or from the first token after their input."""
        start_token = self._architecture.decoder_start_token_id
        is_read = self._architecture.is_decoder_only
        for row in encoded.rows:
            row.position = row.num_input - 1 if is_read else 0
            row.token = row.request.input_ids[-1] if start_token is None else start_token
            self.running[row.request.id] = row
        self._batch.join(encoded)
        for row in encoded.rows:
            if row.width > 1:
                self._batch.fork(row, Beams(row).rows[1:])
        if not is_read:
            return []
        scored: list[Event] = [
            self._fail(row) if tokens is None else Prompt(row.request.id, tokens)
            for row, tokens in score_prompts(encoded, self._batch.logits)
        ]
        places = [i for i, row in enumerate(encoded.rows) if row.request.id in self.running]
        if not places:
            return scored
        rows = [encoded.rows[i] for i in places]
        hidden_RD = select(encoded.last_hidden(), places)
        if any(row.beams is not None for row in rows):
            widths = torch.tensor([row.width for row in rows], device=hidden_RD.device)
            hidden_RD = hidden_RD.repeat_interleave(widths, dim=0)
            rows = [one for row in rows for one in (row.beams.rows if row.beams else [row])]
        events = self._emit(rows, self._batch.logits(hidden_RD))
        self._charge(rows)
        return scored + events

    def decode(self) -> list[Event]:
        """One token of every running row."""
        rows = list(self._batch.rows)
        self.batch_rows[len(rows)] += 1
        events = self._emit(rows, self._batch.step())
        self._charge(rows)
        return events

    def _emit(self, rows: list[Row], logits_RV: Tensor) -> list[Event]:
        """Choose the next token of every row and report it; rows that end leave the batch."""
        searches = [row.beams for row in rows if row.beams and row is row.beams.rows[0]]
        if not searches:
            return self._advance_all(rows, choose(logits_RV, rows))
        at = {id(row): i for i, row in enumerate(rows)}
        events: list[Event] = []
        for beams in searches:
            places = torch.tensor([at[id(row)] for row in beams.rows], device=logits_RV.device)
            events += self._search(beams, logits_RV.index_select(0, places))
        single = [i for i, row in enumerate(rows) if row.beams is None]
        if single:
            others = [rows[i] for i in single]
            events += self._advance_all(others, choose(select(logits_RV, single), others))
        return events

    def _search(self, beams: Beams, logits_kV: Tensor) -> list[Event]:
        row = beams.rows[0]
        if not all(finite_rows(logits_kV)):
            return [self._fail(row)]
        parents = beams.advance(logits_kV)
        if parents is not None:
            self._batch.reorder(beams.rows, parents)
            return []
        num_output = sum(len(one.tokens) for one in beams.best)
        self._totals["output_tokens"] += num_output
        self._totals["finished"] += 1
        self._leave(row, is_poisoned=False)
        return [Searched(row.request.id, beams.best, row.num_input, num_output)]

    def _advance_all(self, rows: list[Row], choices: list[Choice | None]) -> list[Event]:
        events: list[Event] = []
        for row, choice in zip(rows, choices, strict=True):
            events += self._advance(row, choice)
        return events

    def _advance(self, row: Row, choice: Choice | None) -> list[Event]:
        request = row.request
        if choice is None:
            return [self._fail(row)]
        if choice.token in row.ends:
            return [self._finish(row, "stop")]
        row.write(choice.token)
        self._totals["output_tokens"] += 1
        events: list[Event] = [Token(request.id, choice.token, choice.logprob, choice.top)]
        if row.num_output == request.sampling.max_tokens:
            events.append(self._finish(row, "length"))
        return events

    def _finish(self, row: Row, reason: Reason) -> Finished:
        self._leave(row, is_poisoned=False)
        self._totals["finished"] += 1
        return Finished(row.request.id, reason, row.num_input, row.num_output)

    def _fail(self, row: Row) -> Failed:
        self._leave(row, is_poisoned=True)
        self._totals["failed"] += 1
        return not_finite(row.request, "logits")

    def _leave(self, row: Row, *, is_poisoned: bool) -> None:
        del self.running[row.request.id]
        for one in [row] if row.beams is None else row.beams.rows:
            self._batch.leave(one, is_poisoned=is_poisoned)
