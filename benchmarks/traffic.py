"""Traffic for an engine in this process: who asks for what, when, and what they saw."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from adapters_store.errors import OverloadedError
from serving.engine import Engine, Failed, Finished, Request, Token


@dataclass(slots=True)
class Seen:
    """One request's times in seconds of ``time.perf_counter``."""

    tenant: str
    sent_at: float
    first_at: float | None = None
    done_at: float | None = None
    num_tokens: int = 0
    code: str | None = None

    @property
    def first_s(self) -> float:
        """Seconds to the first token."""
        assert self.first_at is not None
        return self.first_at - self.sent_at

    @property
    def whole_s(self) -> float:
        """Seconds to the last token."""
        assert self.done_at is not None
        return self.done_at - self.sent_at


@dataclass(slots=True)
class Driver:
    """Steps an engine and notes when each request's tokens came."""

    engine: Engine
    seen: dict[str, Seen] = field(default_factory=dict)
    num_waiting: int = 0

    def send(self, request: Request, sent_at: float | None = None) -> None:
        """Submit now; ``sent_at`` is when it should have been sent, else now."""
        at = time.perf_counter() if sent_at is None else sent_at
        self.seen[request.id] = Seen(request.tenant, at)
        self.engine.submit(request)
        self.num_waiting += 1

    def step(self) -> list[str]:
        """One step; returns the requests that ended."""
        self.engine.wait(0.01)
        ended = []
        events = self.engine.step()
        now = time.perf_counter()
        for event in events:
            seen = self.seen[event.id]
            if isinstance(event, Token):
                seen.num_tokens += 1
                seen.first_at = seen.first_at or now
            elif isinstance(event, Finished | Failed):
                seen.done_at = now
                seen.code = event.code if isinstance(event, Failed) else None
                self.num_waiting -= 1
                ended.append(event.id)
        return ended


def closed_loop(
    engine: Engine, make: Callable[[int], Request], *, num_clients: int, num_requests: int
) -> tuple[list[Seen], float]:
    """``num_clients`` callers that each wait for their answer; requests seen and seconds taken."""
    driver = Driver(engine)
    began = time.perf_counter()
    sent = 0
    while sent < min(num_clients, num_requests):
        driver.send(make(sent))
        sent += 1
    while driver.num_waiting:
        for _ in driver.step():
            if sent < num_requests:
                driver.send(make(sent))
                sent += 1
    return list(driver.seen.values()), time.perf_counter() - began


def open_loop(engine: Engine, arrivals: Sequence[tuple[float, Request]]) -> list[Seen]:
    """Requests sent at their times (seconds from now, ascending), whatever was answered by then.

    A request that the engine refuses is left out.
    """
    driver = Driver(engine)
    began = time.perf_counter()
    number = 0
    while number < len(arrivals) or driver.num_waiting:
        now = time.perf_counter() - began
        while number < len(arrivals) and arrivals[number][0] <= now:
            at, request = arrivals[number]
            number += 1
            try:
                driver.send(request, began + at)
            except OverloadedError:
                del driver.seen[request.id]
        if driver.num_waiting:
            driver.step()
        elif number < len(arrivals):
            time.sleep(min(0.001, max(0.0, arrivals[number][0] - now)))
    return list(driver.seen.values())


def poisson(rate_per_s: float, duration_s: float, seed: str) -> Iterator[float]:
    """Arrival times of a Poisson process, ascending."""
    generator = random.Random(seed)
    at = generator.expovariate(rate_per_s)
    while at < duration_s:
        yield at
        at += generator.expovariate(rate_per_s)


def zipf(num: int, exponent: float) -> list[float]:
    """Weights of ``num`` things by rank; exponent 0 is uniform."""
    return [1.0 / (rank + 1) ** exponent for rank in range(num)]


def percentile(values: Sequence[float], share: float) -> float:
    """The value that ``share`` of the values do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
