"""Systems that take one step in turn, round after round, and the times of their steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

NUM_WARM_UP = 2
"""Rounds that do not count, at the start of a measurement."""


@dataclass(slots=True)
class System:
    """Something that does one unit of work per call; its times in seconds, by wall and processor.

    The processor's time is that of the whole process, in which nothing else works meanwhile.
    """

    name: str
    step: Callable[[], object]
    times_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def measure(self) -> None:
        """Do one unit and note its times."""
        cpu, start = time.process_time(), time.perf_counter()
        self.step()
        self.times_s.append(time.perf_counter() - start)
        self.cpu_s.append(time.process_time() - cpu)

    @property
    def median_s(self) -> float:
        """The median by wall."""
        return median(self.times_s)

    def row(self, base: System) -> dict[str, Any]:
        """Medians, the middle four fifths, and both ratios to ``base``."""
        ordered = sorted(self.times_s)
        return {
            "system": self.name,
            "step_ms": 1e3 * self.median_s,
            "p10_ms": 1e3 * ordered[len(ordered) // 10],
            "p90_ms": 1e3 * ordered[-1 - len(ordered) // 10],
            "over_bare": self.median_s / base.median_s,
            "cpu_over_bare": median(self.cpu_s) / median(base.cpu_s),
        }


def take_turns(
    systems: Sequence[System], num_rounds: int, *, num_warm_up: int = NUM_WARM_UP
) -> None:
    """Measure all systems ``num_rounds`` times, so that drift meets all alike; warms up first."""
    for number in range(num_rounds + num_warm_up):
        if number == num_warm_up:
            for system in systems:
                system.times_s.clear()
                system.cpu_s.clear()
        for system in systems:
            system.measure()
