"""The engine: submit rows, step, read events.

A step admits waiting rows whose adapters are in memory, encodes them, and decodes one token of
every running row. One thread owns an engine; adapters are loaded by another in the background.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import torch

from adapters_store.backbone import Backbone
from adapters_store.errors import UsageError
from serving.device import find_device
from serving.engine.checks import check, misfit
from serving.engine.config import EngineConfig
from serving.engine.endings import end_tokens
from serving.engine.events import Event, Failed, Finished
from serving.engine.generation import Generation
from serving.engine.intake import Intake
from serving.engine.request import Request
from serving.engine.row import Row
from serving.engine.scheduler import Scheduler
from serving.engine.stats import COUNTED, EngineStats
from serving.engine.step_tokens import StepTokens
from serving.engine.unloading import Unloading, cut_off
from serving.engine.weights import Weights, load_weights
from serving.primitives.backend import backend_for
from serving.primitives.prepared import Target
from serving.residency.cache import AdapterCache
from serving.residency.loader import ArtefactLoader


class Engine:
    """Serves one backbone with any number of adapters.

    ``loader`` reads artefacts by digest; see :class:`ArtefactLoader`. Engines of one process may
    share ``weights`` (:func:`load_weights`), which are only read. Raises IncompatibleError when
    the folder lacks a parameter, and UsageError for a device that is not there and for shared
    weights of another dtype or device. Sets torch's thread count for the whole process.
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
        device = find_device(config.device) if weights is None else weights.device
        with torch.inference_mode():
            self._weights = weights or load_weights(backbone, config.torch_dtype, device)
            if self._weights.dtype != config.torch_dtype:
                raise UsageError(
                    f"the shared weights are {self._weights.dtype}; dtype is {config.dtype}"
                )
            backend = backend_for(config.kernels, device, config.torch_dtype)
            self._weights = replace(self._weights, backend=backend)
            if config.device != "auto" and find_device(config.device) != device:
                raise UsageError(f"the shared weights are on {device}; device is {config.device!r}")
        target = Target(
            self._weights.layout,
            self.config.torch_dtype,
            self._weights.device,
            self._weights.vectors,
            self._weights.pooler,
            self._weights.relative,
        )
        self._cache = AdapterCache(
            loader, target, backbone.fingerprint, config.max_adapter_bytes, config.max_host_bytes
        )
        self._scheduler = Scheduler(self._cache, self.config)
        self._totals: Counter[str] = Counter()
        self._generation: Generation | None = None
        if self._weights.output is not None:
            self._generation = Generation(
                self._weights, config, self._architecture, self._totals, self._scheduler
            )
        self._intake = Intake(
            self._weights, config, self._totals, self._scheduler, self._generation
        )
        self._unloading = Unloading()
        self._events: list[Event] = []
        self._last_num_adapters = 0
        self._last_step_s = 0.0

    def submit(self, request: Request) -> None:
        """Queue a request.

        Raises :class:`OverloadedError` when the queue is full, and :class:`UsageError` for an id
        in use, an empty or too long input, a token outside the vocabulary, keys and values beyond
        ``max_kv_bytes``, or a kind that this backbone cannot serve.
        """
        is_known = request.id in self._running or request.id in self._scheduler
        start_token, reader = self._architecture.decoder_start_token_id, self._weights.reader
        row = Row.of(request, self._end_tokens, start_token, reader.record.name)
        check(row, self._architecture, self.config, is_known=is_known)
        if self._generation is not None and request.kind == "generate":
            self._generation.room.check(row)
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

    def preload(self, digests: Iterable[str]) -> None:
        """Read adapters into memory in the background, so that their first rows need no read.

        They are taken over as steps are made; one that cannot be read is left to its first row.
        """
        for digest in digests:
            self._cache.preload(digest)

    def unload(self, digest: str, timeout_s: float) -> None:
        """Free the memory of an adapter, or of a bank and its tasks, once its rows are done.

        Until then it takes no new rows; those left after ``timeout_s`` seconds fail with
        ``unavailable``. Asking for it later loads it again.
        """
        self._unloading.begin(digest, self._cache.tasks_of(digest), timeout_s)
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
        admitted, failures = self._admit()
        failures += self._take_misfits(admitted)
        events += failures
        self._totals["failed"] += len(failures)
        adapters = {row.request.adapter for row in (*admitted, *self._running.values())}
        if adapters:
            events += self._intake.take(admitted)
        if self._generation is not None and self._running:
            events += self._generation.decode()
        if adapters:
            self._totals["steps"] += 1
            self._last_num_adapters = len(adapters - {None})
            self._last_step_s = time.perf_counter() - start
        return events

    def stats(self) -> EngineStats:
        """Gauges of now and counters since the start."""
        totals = self._totals
        budget = None if self._generation is None else self._generation.budget
        return EngineStats(
            num_running=len(self._running),
            num_waiting=len(self._scheduler),
            last_num_adapters=self._last_num_adapters,
            last_step_s=self._last_step_s,
            **{f"num_{name}_total": totals[name] for name in COUNTED},
            table_bytes=0 if self._generation is None else self._generation.table_bytes,
            kv_bytes=0 if budget is None else budget.num_bytes,
            prefix_bytes=0 if self._generation is None else self._generation.known.num_bytes,
            kv_used_bytes=0 if budget is None else budget.used_bytes,
            cache=self._cache.stats(),
            batch_rows={} if self._generation is None else dict(self._generation.batch_rows),
        )

    def resident(self) -> set[str]:
        """Digests of the artefacts in memory or on their way there."""
        return self._cache.digests()

    def close(self) -> None:
        """Stop the loader thread. The engine takes no further steps."""
        self._cache.close()

    @property
    def _running(self) -> dict[str, Row]:
        return {} if self._generation is None else self._generation.running

    def _unload_due(self) -> list[Event]:
        """Drop the adapters whose rows are done, and those whose time is up with their rows."""
        events: list[Event] = []
        rows = [*self._running.values(), *self._scheduler.rows()]
        for members, left in self._unloading.take(rows):
            for row in left:
                self._drop(row.request.id)
                events.append(cut_off(row))
            self._totals["failed"] += len(left)
            for digest in members:
                self._cache.drop(digest)
                if self._generation is not None:
                    self._generation.known.forget(digest)
        return events

    def _drop(self, request_id: str) -> Row | None:
        """Take a request out, wherever it is; None where it is neither waiting nor running."""
        row = self._running.get(request_id)
        if row is None or self._generation is None:
            return self._scheduler.remove(request_id)
        self._generation.drop(row)
        return row

    def _admit(self) -> tuple[list[Row], list[Event]]:
        running, generation = self._running.values(), self._generation
        if generation is None:
            tokens = StepTokens(self.config.max_step_tokens)
            return self._scheduler.admit(self.config.max_rows, running, tokens)
        tokens = StepTokens(self.config.max_step_tokens, generation.num_unread, generation.is_read)
        return self._scheduler.admit(
            self.config.max_rows - generation.num_rows, running, tokens, generation.room.taker()
        )

    def _take_misfits(self, admitted: list[Row]) -> list[Event]:
        """Take rows out of ``admitted`` that do not fit behind their adapter's own rows."""
        failures: list[Event] = []
        for row in admitted.copy():
            problem = misfit(row, self._architecture)
            if problem is None and self._generation is not None:
                problem = self._generation.room.excess(row)
            if problem is not None:
                admitted.remove(row)
                self._scheduler.release(row)
                failures.append(Failed(row.request.id, UsageError.code, problem))
        return failures
