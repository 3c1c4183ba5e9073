"""Run an engine until it is idle and gather what every request got."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from serving.engine import (
    Embedded,
    Engine,
    Event,
    Failed,
    Finished,
    Request,
    Scored,
    Searched,
    Token,
)


@dataclass(slots=True)
class Outcome:
    """All events of one request, taken apart."""

    tokens: list[int] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    reason: str | None = None
    scores: list[float] | None = None
    vector: list[float] | None = None
    code: str | None = None

    def take(self, event: Event) -> None:
        """Add one event."""
        self.events.append(event)
        if isinstance(event, Token):
            self.tokens.append(event.token)
        elif isinstance(event, Finished):
            self.reason = event.reason
        elif isinstance(event, Searched):
            self.tokens = [one.token for one in event.hypotheses[0].tokens]
            self.reason = event.hypotheses[0].reason
        elif isinstance(event, Scored):
            self.scores = event.scores
        elif isinstance(event, Embedded):
            self.vector = event.vector
        elif isinstance(event, Failed):
            self.code = event.code


def drain(engine: Engine, outcomes: dict[str, Outcome], *, num_steps: int | None = None) -> None:
    """Step until nothing is left, or ``num_steps`` times; events are added to ``outcomes``."""
    while engine.has_work and num_steps != 0:
        engine.wait(1.0)
        for event in engine.step():
            outcomes.setdefault(event.id, Outcome()).take(event)
        num_steps = None if num_steps is None else num_steps - 1


def answers(engine: Engine, requests: Iterable[Request]) -> dict[str, Outcome]:
    """Submit all requests at once and return every outcome by request id."""
    outcomes: dict[str, Outcome] = {}
    for request in requests:
        engine.submit(request)
    drain(engine, outcomes)
    return outcomes
