"""The rows that generate: they start, decode a token a step together, and leave."""

from __future__ import annotations

from collections import Counter

import torch
from torch import Tensor

from adapters_store.families.architecture import Architecture
from serving.engine.answers import not_finite
from serving.engine.batch import DecodeBatch
from serving.engine.beams import Beams
from serving.engine.config import EngineConfig
from serving.engine.draw import select
from serving.engine.events import Event, Failed, Finished, Reason, Searched, Token
from serving.engine.kv_budget import KvBudget
from serving.engine.layer_reader import LayerReader
from serving.engine.parts import PartReader, Reading
from serving.engine.prefill import Encoded
from serving.engine.prefix_cache import PrefixCache
from serving.engine.prompt_scores import score_prompts, told
from serving.engine.room import Room
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
        self._parts = PartReader(
            weights, self._batch.shape, self.budget, self.known, self._batch.logits
        )
        self._layers = LayerReader(weights, config.torch_dtype, self.budget)
        self.room = Room(self._batch, self.budget, self._input_bytes)
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
        """Tokens of inputs that are still to be read over several steps."""
        return self._parts.num_left + self._layers.num_left

    def mate_of(self, row: Row) -> Row | None:
        """A row of the batch from whose encoder ``row`` can go on; None where there is none."""
        if self._architecture.is_decoder_only or row.request.kind != "generate":
            return None
        others = (one for one in self.running.values() if one.width and one not in self._layers)
        return next((one for one in others if one.origin == row.origin), None)

    def is_read(self, row: Row) -> bool:
        """Whether the row's input was read for another one, or is being read."""
        if self._architecture.is_decoder_only:
            return row.request.kind == "generate" and self._parts.find(row) is not None
        return self._layers.reads(row) or self.mate_of(row) is not None

    def reads_over_steps(self, row: Row) -> bool:
        """Whether the row's input is read over several steps, behind what is known, or again."""
        is_long = row.num_read > self._config.max_step_tokens
        if not self._architecture.is_decoder_only:
            return is_long or self._layers.reads(row)
        if row.request.kind != "generate":
            return False
        if row.tokens or is_long or self._parts.find(row) is not None:
            return True
        return not row.scores_input and self.known.num_known(row.request.adapter, row.inputs) > 0

    def begin(self, row: Row) -> None:
        """Take a row that reads over several steps; its lease ends when the input is whole."""
        reserved_bytes = self._batch.entry_bytes(row) if row.width else 0
        reader = self._parts if self._architecture.is_decoder_only else self._layers
        self._totals["reused_tokens"] += reader.begin(row, reserved_bytes)
        self.running[row.request.id] = row

    def read(self, max_tokens: int) -> list[Event]:
        """Read on in parts, ``max_tokens`` at most; rows with whole inputs start to decode."""
        events: list[Event] = []
        whole: list[Reading] = []
        for reading in self._parts.step(max_tokens):
            if not reading.is_finite:
                events += [self._fail(row) for row in list(reading.rows)]
            elif not reading.num_left:
                whole.append(reading)
        for reading in whole:
            self._parts.settle(reading)
            for row in reading.rows:
                row.go_on_after(len(reading.inputs))
        if whole:
            self._batch.join_read(whole)
        new: list[Row] = []
        states: list[Tensor] = []
        for reading in whole:
            self.known.keep(reading.row.request.adapter, reading.inputs, reading.kv)
            for row in list(reading.rows):
                self._parts.end(row)
                self._fork(row)
                if row.scores_input:
                    events.append(told(row, reading.scores))
                if not row.tokens and reading.hidden is not None:
                    new.append(row)
                    states.append(reading.hidden)
                self._scheduler.release(row)
        return events + (self._write_first(new, torch.cat(states)) if new else [])

    def read_layers(self, max_tokens: int) -> Encoded | None:
        """Read on in layers, ``max_tokens`` at most; returns an input that is whole.

        Its rows are no longer running.
        """
        encoded = self._layers.step(max_tokens)
        for row in [] if encoded is None else encoded.rows:
            del self.running[row.request.id]
        return encoded

    def drop(self, row: Row) -> None:
        """Take a running row out and free its memory."""
        with torch.inference_mode():
            self._leave(row, is_poisoned=False)

    def start(self, encoded: Encoded) -> list[Event]:
        """Let rows decode: from the start token, or from the first token after their input."""
        for row in encoded.rows:
            self._enter(row)
        self._batch.join(encoded)
        for row in encoded.rows:
            self._fork(row)
        if not self._architecture.is_decoder_only:
            return []
        self.known.keep_all(encoded)
        scored: list[Event] = [
            self._fail(row) if prompt is None else prompt
            for row, prompt in score_prompts(encoded, self._batch.logits)
        ]
        places = [i for i, row in enumerate(encoded.rows) if row.request.id in self.running]
        if not places:
            return scored
        rows = [encoded.rows[i] for i in places]
        return scored + self._write_first(rows, select(encoded.last_hidden(), places))

    def start_beside(self, row: Row, mate: Row) -> None:
        """Let a row decode from the start token, behind what was read for ``mate``."""
        self._enter(row)
        self._batch.join_beside(row, mate)
        self._fork(row)
        self._totals["reused_tokens"] += row.num_input

    def _enter(self, row: Row) -> None:
        start_token = self._architecture.decoder_start_token_id
        is_read = self._architecture.is_decoder_only
        row.position = row.num_read - 1 if is_read else row.place().writer.num_prompt
        row.token = row.request.input_ids[-1] if start_token is None else start_token
        self.running[row.request.id] = row

    def _fork(self, row: Row) -> None:
        """Give a search that has just joined the rows of its other beams."""
        if row.width > 1:
            self._batch.fork(row, Beams(row).rows[1:])

    def _write_first(self, rows: list[Row], hidden_RD: Tensor) -> list[Event]:
        """Choose the first token of rows whose input was read to those last states."""
        if any(row.beams is not None for row in rows):
            widths = upload([row.width for row in rows], hidden_RD.device)
            hidden_RD = hidden_RD.repeat_interleave(widths, dim=0)
            rows = [one for row in rows for one in (row.beams.rows if row.beams else [row])]
        events = self._emit(rows, self._batch.logits(hidden_RD))
        self._scheduler.charge(rows)
        return events

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

    def _input_bytes(self, row: Row) -> int | None:
        """Bytes that a row's input takes while it is read over several steps; None where whole."""
        if not self.reads_over_steps(row):
            return None
        return self._parts.bytes_for(row) if self._architecture.is_decoder_only else 0

    def _preempt(self) -> None:
        """Send the row that came last back to the queue, and free its keys and values."""
        holding = [row for row in self.running.values() if row.width]
        row = max(holding, key=lambda one: one.arrived_at)
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
        if not beams.best:
            return [self._fail(row)]
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
        for reader in (self._parts, self._layers):
            if row in reader:
                reader.end(row)
                self._scheduler.release(row)
                return
        for one in [row] if row.beams is None else row.beams.rows:
            self._batch.leave(one, is_poisoned=is_poisoned)
