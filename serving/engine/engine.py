"""The engine: submit rows, step, read events.

A step admits waiting rows whose adapters are in memory, encodes them, and decodes one token of
every running row. One thread owns an engine; adapters are loaded by another in the background.
"""

from __future__ import annotations

import time
from collections import Counter

import torch
from torch import Tensor

from adapters_store.backbone import Backbone
from adapters_store.errors import UsageError
from serving.engine.answers import answer, not_finite
from serving.engine.batch import DecodeBatch
from serving.engine.beams import Beams
from serving.engine.checks import check
from serving.engine.config import EngineConfig
from serving.engine.draw import select
from serving.engine.endings import end_tokens
from serving.engine.events import Event, Failed, Finished, Reason, Searched, Token
from serving.engine.prefill import Encoded, encode
from serving.engine.request import Request
from serving.engine.row import Row
from serving.engine.sampler import Choice, choose, finite_rows
from serving.engine.scheduler import Scheduler
from serving.engine.stats import COUNTED, EngineStats
from serving.engine.unloading import Unloading, cut_off
from serving.engine.weights import Weights, load_weights
from serving.primitives.prepared import Target
from serving.residency.cache import AdapterCache
from serving.residency.loader import ArtefactLoader


class Engine:
    """Serves one backbone with any number of adapters.

    ``loader`` reads artefacts by digest; see :class:`ArtefactLoader`. Engines of one process may
    share ``weights`` (:func:`load_weights`), which are only read. Raises IncompatibleError when
    the folder lacks a parameter, and UsageError for shared weights of another dtype. Sets torch's
    thread count for the whole process.
    """

    def __init__(
        self,
        backbone: Backbone,
        loader: ArtefactLoader,
        config: EngineConfig | None = None,
        *,
        weights: Weights | None = None,
    ) -> None:
        self.config = config = config or EngineConfig()
        torch.set_num_threads(self.config.num_threads)
        self.backbone = backbone
        self._architecture = backbone.architecture
        self._end_tokens = end_tokens(backbone)
        with torch.inference_mode():
            self._weights = weights or load_weights(backbone, self.config.torch_dtype)
            if self._weights.dtype != self.config.torch_dtype:
                raise UsageError(
                    f"the shared weights are {self._weights.dtype}; dtype is {self.config.dtype}"
                )
            has_decoder = self._weights.output is not None
            self._batch = DecodeBatch(self._weights, self.config) if has_decoder else None
        target = Target(
            self._weights.layout,
            self.config.torch_dtype,
            self._weights.device,
            self._weights.vectors,
            self._weights.pooler,
        )
        self._cache = AdapterCache(
            loader, target, backbone.fingerprint, config.max_adapter_bytes, config.max_host_bytes
        )
        self._scheduler = Scheduler(self._cache, self.config)
        self._running: dict[str, Row] = {}
        self._unloading = Unloading()
        self._events: list[Event] = []
        self._totals: Counter[str] = Counter()
        self._batch_rows: Counter[int] = Counter()
        self._last_num_adapters = 0
        self._last_step_s = 0.0

    def submit(self, request: Request) -> None:
        """Queue a request.

        Raises :class:`OverloadedError` when the queue is full, and :class:`UsageError` for an id
        in use, an empty or too long input, a token outside the vocabulary, or a kind that this
        backbone cannot serve.
        """
        is_known = request.id in self._running or request.id in self._scheduler
        row = Row.of(request, self._end_tokens, self._architecture.decoder_start_token_id)
        check(row, self._architecture, self.config, is_known=is_known)
        self._unloading.check(request.adapter)
        self._scheduler.add(row)

    def cancel(self, request_id: str) -> bool:
        """Drop a request and its memory at once; its Finished event comes with the next step.

        Returns False when no such request is waiting or running.
        """
        row = self._drop(request_id)
        if row is None:
            return False
        self._totals["cancelled"] += 1
        self._events.append(Finished(request_id, "cancelled", row.num_input, row.num_output))
        return True

    def unload(self, digest: str, timeout_s: float) -> None:
        """Free the memory of an adapter, or of a bank and its tasks, once its rows are done.

        Until then it takes no new rows; those left after ``timeout_s`` seconds fail with
        ``unavailable``. Asking for it later loads it again.
        """
        self._unloading.begin(digest, timeout_s)
        with torch.inference_mode():
            self._events += self._unload_due()

    @property
    def has_work(self) -> bool:
        """True while a step has rows to run, wait for, or report."""
        return bool(self._running or len(self._scheduler) or self._events)

    def wait(self, timeout_s: float) -> None:
        """Block while every row waits for its adapter, at most ``timeout_s`` seconds."""
        if self.is_stalled:
            self._cache.wait(timeout_s)

    @property
    def is_stalled(self) -> bool:
        """True while there is nothing to do but wait for adapters."""
        return not self._running and not self._events and self._scheduler.is_stalled

    @torch.inference_mode()
    def step(self) -> list[Event]:
        """Run one step and return what happened, in order for each row."""
        start = time.perf_counter()
        events, self._events = self._events, []
        if self._unloading:
            events += self._unload_due()
        num_free = self.config.max_rows - sum(row.width for row in self._running.values())
        admitted, failures = self._scheduler.admit(num_free, self._running.values())
        events += failures
        self._totals["failed"] += len(failures)
        adapters = {row.request.adapter for row in (*admitted, *self._running.values())}
        if admitted:
            events += self._prefill(admitted)
        if self._running:
            events += self._decode()
        if adapters:
            self._totals["steps"] += 1
            self._last_num_adapters = len(adapters - {None})
            self._last_step_s = time.perf_counter() - start
        return events

    def stats(self) -> EngineStats:
        """Gauges of now and counters since the start."""
        totals = self._totals
        return EngineStats(
            num_running=len(self._running),
            num_waiting=len(self._scheduler),
            last_num_adapters=self._last_num_adapters,
            last_step_s=self._last_step_s,
            **{f"num_{name}_total": totals[name] for name in COUNTED},
            table_bytes=0 if self._batch is None else self._batch.table_bytes,
            kv_bytes=0 if self._batch is None else self._batch.kv_bytes,
            cache=self._cache.stats(),
            batch_rows=dict(self._batch_rows),
        )

    def resident(self) -> set[str]:
        """Digests of the artefacts in memory or on their way there."""
        return self._cache.digests()

    def close(self) -> None:
        """Stop the loader thread. The engine takes no further steps."""
        self._cache.close()

    def _unload_due(self) -> list[Event]:
        """Drop the adapters whose rows are done, and those whose time is up with their rows."""
        events: list[Event] = []
        rows = [*self._running.values(), *self._scheduler.rows()]
        for digest, left in self._unloading.take(rows):
            for row in left:
                self._drop(row.request.id)
                events.append(cut_off(row))
            self._totals["failed"] += len(left)
            self._cache.drop(digest)
        return events

    def _drop(self, request_id: str) -> Row | None:
        """Take a request out, wherever it is; None where it is neither waiting nor running."""
        row = self._running.get(request_id)
        if row is None:
            return self._scheduler.remove(request_id)
        with torch.inference_mode():
            self._leave(row, is_poisoned=False)
        return row

    def _prefill(self, admitted: list[Row]) -> list[Event]:
        self._totals["input_tokens"] += sum(row.num_input for row in admitted)
        encoded = encode(self._weights, admitted, self.config.torch_dtype)
        events = answer(encoded)
        for event in events:
            self._totals["failed" if isinstance(event, Failed) else "finished"] += 1
        generating = encoded.generating()
        if generating.rows:
            events += self._start(generating)
        for row in admitted:
            self._scheduler.release(row)
        return events

    def _start(self, encoded: Encoded) -> list[Event]:
        """Let rows decode: from the start token, or from the first token after their input."""
        assert self._batch is not None
        start_token = self._architecture.decoder_start_token_id
        is_read = self._architecture.is_decoder_only
        for row in encoded.rows:
            row.position = row.num_input - 1 if is_read else 0
            row.token = row.request.input_ids[-1] if start_token is None else start_token
            self._running[row.request.id] = row
        self._batch.join(encoded)
        for row in encoded.rows:
            if row.width > 1:
                self._batch.fork(row, Beams(row).rows[1:])
        if not is_read:
            return []
        hidden_RD = encoded.last_hidden()
        rows = encoded.rows
        if any(row.beams is not None for row in rows):
            widths = torch.tensor([row.width for row in rows], device=hidden_RD.device)
            hidden_RD = hidden_RD.repeat_interleave(widths, dim=0)
            rows = [one for row in rows for one in (row.beams.rows if row.beams else [row])]
        events = self._emit(rows, self._batch.logits(hidden_RD))
        self._scheduler.charge(rows)
        return events

    def _decode(self) -> list[Event]:
        assert self._batch is not None
        rows = list(self._batch.rows)
        self._batch_rows[len(rows)] += 1
        events = self._emit(rows, self._batch.step())
        self._scheduler.charge(rows)
        return events

    def _emit(self, rows: list[Row], logits_RV: Tensor) -> list[Event]:
        """Choose the next token of every row and report it; rows that end leave the batch."""
        searches = list(
            {id(row.beams): row.beams for row in rows if row.beams is not None}.values()
        )
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
        assert self._batch is not None
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
        assert self._batch is not None
        del self._running[row.request.id]
        for one in [row] if row.beams is None else row.beams.rows:
            self._batch.leave(one, is_poisoned=is_poisoned)
