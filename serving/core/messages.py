"""What travels between a replica and its engine core.

Client to core: :class:`Submit`, :class:`Cancel`, :class:`Stop`. Core to client: :class:`Ready`
once, then one :class:`StepReport` per engine step with the events of all rows, a
:class:`Heartbeat` when nothing else was said for a second, and :class:`Fatal` before an
unexpected end.
"""

from __future__ import annotations

from dataclasses import dataclass

from serving.engine.events import Event
from serving.engine.request import Request


@dataclass(frozen=True, slots=True)
class Submit:
    """Run this request; its events carry the request's id."""

    request: Request


@dataclass(frozen=True, slots=True)
class Cancel:
    """Drop the request of that id; unknown and finished ids are ignored."""

    id: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Leave the loop after the present step."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The backbone is loaded and warm. ``load_s`` counts from the process's start."""

    fingerprint: str
    pid: int
    load_s: float


@dataclass(frozen=True, slots=True)
class Stats:
    """The engine's state after a step; the counters only grow.

    ``lookups`` counts by the tier that answered: ``memory``, ``loading`` (joined a load that was
    on its way), ``host`` (read before, to be prepared again) and ``store``. ``loads_s`` are the
    loads since the last report. ``kv_used_bytes`` of ``kv_bytes`` belong to rows; a preempted row's
    are computed anew, reused tokens' are not computed at all.
    """

    num_running: int
    num_waiting: int
    num_resident_adapters: int
    resident_adapter_bytes: int
    num_evictions: int
    lookups: dict[str, int]
    loads_s: tuple[float, ...]
    host_adapter_bytes: int
    kv_used_bytes: int
    kv_bytes: int
    num_preemptions: int
    num_reused_tokens: int


@dataclass(frozen=True, slots=True)
class StepReport:
    """One engine step: its duration, its batch and every row's events.

    ``num_rows`` and ``num_distinct_adapters`` count the rows that the step gave something for.
    ``stats`` is sent a few times a second and None in between.
    """

    events: tuple[Event, ...]
    step_s: float
    num_rows: int
    num_distinct_adapters: int
    stats: Stats | None


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """The core is alive."""

    stats: Stats


@dataclass(frozen=True, slots=True)
class Fatal:
    """The core ends because of an error; ``code`` is that of a typed error."""

    code: str
    message: str


ToCore = Submit | Cancel | Stop
ToClient = Ready | StepReport | Heartbeat | Fatal
