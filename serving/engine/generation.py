"""The rows that generate: they start, decode a token a step together, and leave."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import accumulate

import torch
from torch import Tensor

from adapters_store.errors import UsageError
from adapters_store.families.architecture import Architecture
from serving.engine.answers import not_finite
from serving.engine.batch import DecodeBatch
from serving.engine.beams import Beams
from serving.engine.config import EngineConfig
from serving.engine.draw import select
from serving.engine.events import Event, Failed, Finished, Prompt, Reason, Searched, Token
from serving.engine.kv_budget import KvBudget
from serving.engine.parts import PartReader, Reading
from serving.engine.prefill import Encoded
from serving.engine.prefix_cache import BLOCK_TOKENS, PrefixCache
from serving.engine.prompt_scores import score_prompts
from serving.engine.row import Row
from serving.engine.sampler import Choice, choose, finite_rows
from serving.engine.scheduler import Scheduler
from serving.engine.weights import Weights
from serving.upload import upload


class Generation:
    """Running rows by request id: those that decode, and those whose input is read in parts.

    ``totals`` counts what happens. Where keys and values would outgrow ``max_kv_bytes``, the rows
    that came last go back to ``scheduler``; they are computed anew and go on where they were.
    """

    def __init__(
        self,
        weights: Weights,
        config: EngineConfig,
        architecture: Architecture,
        totals: Counter[str],
        scheduler: Scheduler,
    ) -> None:
        self._architecture, self._config = architecture, config
        self.budget = KvBudget(config.max_kv_bytes)
        self._batch = DecodeBatch(weights, config, self.budget)
        self.known = PrefixCache(config.prefix_cache_bytes)
        self._reader = PartReader(weights, self._batch.shape, self.budget, self.known)
        self._totals = totals
        self._scheduler = scheduler
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
    def num_unread(self) -> int:
        """Tokens of inputs that are still to be read in parts."""
        return self._reader.num_left

    def check_fits(self, row: Row) -> None:
        """Raise UsageError where keys and values of a new row may outgrow the budget alone."""
        problem = self.excess(row)
        if problem is not None:
            raise UsageError(problem, hint="Ask for fewer tokens, or raise max_kv_bytes.")

    def excess(self, row: Row) -> str | None:
        """How far keys and values of a row may outgrow the budget alone; None where they fit."""
        if row.request.kind != "generate":
            return None
        needed = self._batch.largest_bytes(row)
        if self._architecture.is_decoder_only:
            longest = row.num_read + row.request.sampling.max_tokens
            needed += longest * self._batch.shape.position_bytes
        if needed <= self.budget.max_bytes:
            return None
        return (
            f"the request's keys and values may take {needed} bytes; max_kv_bytes is "
            f"{self.budget.max_bytes}"
        )

    def room(self) -> Callable[[Row], bool]:
        """A function that takes room for one row after the other; False where there is none.

        A row that outgrows the whole budget is let through, to be refused rather than waited for.
        """
        free: int | None = None

        def take(row: Row) -> bool:
            nonlocal free
            if row.request.kind != "generate" or self.excess(row) is not None:
                return True
            if free is None:
                free = self.budget.free_bytes - self._batch.growth_bytes()
            needed = self._batch.entry_bytes(row)
            if self.reads_in_parts(row):
                needed += self._reader.bytes_for(row)
            has_room = needed <= free
            free -= needed if has_room else 0
            return has_room

        return take

    def reads_in_parts(self, row: Row) -> bool:
        """Whether the row's input is read over several steps, behind what is known, or again."""
        if not self._architecture.is_decoder_only or row.request.kind != "generate":
            return False
        if row.tokens or row.width > 1:
            return row.width == 1
        if row.request.sampling.prompt_logprobs is not None:
            return False
        is_long = row.num_read > self._config.max_step_tokens
        return is_long or self.known.num_known(row.request.adapter, row.inputs) > 0

    def begin(self, row: Row) -> None:
        """Take a row whose input is read in parts; its lease ends when the input is whole."""
        num_known = self._reader.begin(row, self._batch.entry_bytes(row))
        self._totals["reused_tokens"] += num_known
        self.running[row.request.id] = row

    def read(self, max_tokens: int) -> list[Event]:
        """Read on, ``max_tokens`` at most; rows whose input is whole start to decode."""
        events: list[Event] = []
        whole: list[Reading] = []
        for reading in self._reader.step(max_tokens):
            if not reading.is_finite:
                events.append(self._fail(reading.row))
            elif not reading.num_left:
                whole.append(reading)
        for reading in whole:
            self._reader.settle(reading.row)
            reading.row.go_on_after(len(reading.inputs))
        if whole:
            self._batch.join_read(whole)
        for reading in whole:
            self.known.keep(reading.row.request.adapter, reading.inputs, reading.kv)
            self._reader.end(reading.row)
            self._scheduler.release(reading.row)
        new = [one for one in whole if not one.row.tokens]
        if new:
            states = [one.hidden for one in new if one.hidden is not None]
            rows = [one.row for one in new]
            events += self._emit(rows, self._batch.logits(torch.cat(states)))
            self._scheduler.charge(rows)
        return events

    def drop(self, row: Row) -> None:
        """Take a running row out and free its memory."""
        with torch.inference_mode():
            self._leave(row, is_poisoned=False)

    def start(self, encoded: Encoded) -> list[Event]:
        """Let rows decode: from the start token, or from the first token after their input."""
        start_token = self._architecture.decoder_start_token_id
        is_read = self._architecture.is_decoder_only
        for row in encoded.rows:
            row.position = row.num_read - 1 if is_read else row.place().writer.num_prompt
            row.token = row.request.input_ids[-1] if start_token is None else start_token
            self.running[row.request.id] = row
        self._batch.join(encoded)
        for row in encoded.rows:
            if row.width > 1:
                self._batch.fork(row, Beams(row).rows[1:])
        if not is_read:
            return []
        self._keep(encoded)
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
            widths = upload([row.width for row in rows], hidden_RD.device)
            hidden_RD = hidden_RD.repeat_interleave(widths, dim=0)
            rows = [one for row in rows for one in (row.beams.rows if row.beams else [row])]
        events = self._emit(rows, self._batch.logits(hidden_RD))
        self._scheduler.charge(rows)
        return scored + events

    def _keep(self, encoded: Encoded) -> None:
        """Remember the inputs of rows whose states are all finite."""
        spans = torch.split(encoded.hidden, encoded.lengths)
        starts = accumulate(encoded.lengths, initial=0)
        long = [
            (row, span, start)
            for row, span, start in zip(encoded.rows, spans, starts, strict=False)
            if len(span) >= BLOCK_TOKENS
        ]
        if not long:
            return
        sums = torch.stack([span.sum(dtype=torch.float32) for _, span, _ in long])
        for (row, span, start), is_finite in zip(long, sums.isfinite().tolist(), strict=True):
            if is_finite:
                layers = [kv[start : start + len(span)] for kv in encoded.kv]
                self.known.keep(row.request.adapter, row.inputs, layers)

    def decode(self) -> list[Event]:
        """One token of every row that decodes."""
        while self._batch.growth_bytes() > self.budget.free_bytes:
            self._preempt()
        rows = list(self._batch.rows)
        if not rows:
            return []
        self.batch_rows[len(rows)] += 1
        self._scheduler.charge([row for row in rows if not row.is_recalling])
        return self._emit(rows, self._batch.step())

    def _preempt(self) -> None:
        """Send the row that came last back to the queue, and free its keys and values."""
        row = max(self.running.values(), key=lambda one: one.arrived_at)
        self._leave(row, is_poisoned=False)
        row.drop(self._architecture.decoder_start_token_id)
        self._scheduler.requeue(row)
        self._totals["preempted"] += 1

    def _emit(self, rows: list[Row], logits_RV: Tensor) -> list[Event]:
        """Choose the next token of every row and report it; rows that end leave the batch."""
        searches = [row.beams for row in rows if row.beams and row is row.beams.rows[0]]
        if not searches:
            return self._advance_all(rows, choose(logits_RV, rows))
        at = {id(row): i for i, row in enumerate(rows)}
        events: list[Event] = []
        for beams in searches:
            places = upload([at[id(row)] for row in beams.rows], logits_RV.device)
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
        if row.is_recalling:
            row.recall()
            return []
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
        if row in self._reader:
            self._reader.end(row)
            self._scheduler.release(row)
            return
        for one in [row] if row.beams is None else row.beams.rows:
            self._batch.leave(one, is_poisoned=is_poisoned)
