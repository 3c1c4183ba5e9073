"""How the inputs of new rows are read: whole, in parts, by layers, or not at all."""

from __future__ import annotations

from collections import Counter

from serving.engine.answers import answer
from serving.engine.config import EngineConfig
from serving.engine.events import Event, Failed
from serving.engine.generation import Generation
from serving.engine.prefill import Encoded, encode
from serving.engine.row import Row
from serving.engine.scheduler import Scheduler
from serving.engine.weights import Weights


class Intake:
    """Reads what the scheduler admits; rows that generate go on in ``generation``.

    An input is read once for all rows that have it: those admitted together, those that come
    while it is read, and, behind an encoder, those that come while one of them decodes.
    """

    def __init__(
        self,
        weights: Weights,
        config: EngineConfig,
        totals: Counter[str],
        scheduler: Scheduler,
        generation: Generation | None,
    ) -> None:
        self._weights, self._config = weights, config
        self._totals, self._scheduler = totals, scheduler
        self._generation = generation

    def take(self, admitted: list[Row]) -> list[Event]:
        """Read the inputs of new rows, long ones over several steps, and go on with those begun.

        The rows' leases end when their inputs are read.
        """
        self._totals["input_tokens"] += sum(row.num_input for row in admitted if not row.tokens)
        generation = self._generation
        if generation is None:
            return self._finish(self._encode(admitted)) if admitted else []
        whole = [row for row in admitted if not self._goes_on(generation, row)]
        events: list[Event] = []
        num_left = self._config.max_step_tokens
        if whole:
            encoded = self._encode(whole)
            num_left -= sum(encoded.lengths)
            events += self._finish(encoded)
        if generation.num_unread:
            events += generation.read(max(1, num_left))
            read = generation.read_layers(max(1, num_left))
            events += [] if read is None else self._finish(read)
        return events

    def _goes_on(self, generation: Generation, row: Row) -> bool:
        """Whether the input is not read here and now: it is known, or takes several steps."""
        mate = generation.mate_of(row)
        if mate is not None:
            generation.start_beside(row, mate)
            self._scheduler.release(row)
        elif generation.reads_over_steps(row):
            generation.begin(row)
        else:
            return False
        return True

    def _encode(self, rows: list[Row]) -> Encoded:
        encoded = encode(self._weights, rows, self._config.torch_dtype)
        num_shared = sum(row.num_input for row in rows)
        num_shared -= sum(row.num_input for row in encoded.readers)
        self._totals["reused_tokens"] += num_shared
        return encoded

    def _finish(self, encoded: Encoded) -> list[Event]:
        """Answer the rows whose input is read, or let them generate."""
        rows = list(encoded.rows)
        events = answer(encoded)
        for event in events:
            self._totals["failed" if isinstance(event, Failed) else "finished"] += 1
        generating = encoded.generating()
        if generating.rows:
            assert self._generation is not None
            events += self._generation.start(generating)
        for row in rows:
            self._scheduler.release(row)
        return events
