"""What every benchmark writes: machine, versions, configuration, rows, ratios and targets.

A benchmark that comes in parts may be run a part at a time into one file: a part's rows say so in
their field ``part``, and a later run replaces the rows and ratios of the parts it measured.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any

from adapters_store.errors import UsageError

_PACKAGES = ("torch", "transformers", "peft", "ray", "numpy", "sqlalchemy", "psycopg")


@dataclass(frozen=True, slots=True)
class Target:
    """What a ratio should be: one bound, from above or from below."""

    ratio: str
    at_most: float | None = None
    at_least: float | None = None

    def row(self, measured: float) -> dict[str, Any]:
        """Target, measured, and whether the bound holds."""
        if self.at_most is not None:
            bound, met = f"<= {self.at_most:g}", measured <= self.at_most
        else:
            assert self.at_least is not None
            bound, met = f">= {self.at_least:g}", measured >= self.at_least
        return {"ratio": self.ratio, "target": bound, "measured": measured, "met": met}


@dataclass(slots=True)
class Report:
    """One run; ``rows`` are measurements, ``ratios`` a flat object of name to number.

    ``targets`` are the bounds of some ratios, ``parts`` when each part was run, by name.
    """

    name: str
    config: Mapping[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)
    targets: Sequence[Target] = ()
    parts: dict[str, dict[str, Any]] = field(default_factory=dict)

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        """Note when a part was run, how long it took and how busy the machine was before."""
        load, start = os.getloadavg()[0], time.monotonic()
        began = datetime.now(UTC).isoformat(timespec="seconds")
        yield
        seconds = round(time.monotonic() - start, 1)
        self.parts[part] = {"began": began, "seconds": seconds, "load_before": round(load, 2)}

    def add_earlier(self, path: Path) -> None:
        """Take the other parts of the report in ``path``, where there is one.

        Raises UsageError when that is a report of something else, or of another machine, other
        versions or another configuration.
        """
        if not path.exists():
            return
        earlier = json.loads(path.read_text())
        own = json.loads(self.as_json())
        for key in ("name", "machine", "versions", "config"):
            if earlier.get(key) != own[key]:
                raise UsageError(
                    f"{path} holds another run: its {key} is {earlier.get(key)!r}, "
                    f"here it is {own[key]!r}"
                )
        kept = [row for row in earlier["rows"] if row.get("part") not in self.parts]
        self.rows[:0] = kept
        self.ratios = earlier["ratios"] | self.ratios
        self.parts = earlier["parts"] | self.parts

    def judged(self) -> list[dict[str, Any]]:
        """A row of every target whose ratio was measured."""
        return [t.row(self.ratios[t.ratio]) for t in self.targets if t.ratio in self.ratios]

    def as_json(self) -> str:
        """The report as indented JSON, with machine and versions."""
        document = {
            "name": self.name,
            "machine": machine(),
            "versions": versions(),
            "config": dict(self.config),
            "command": " ".join(["python", "-m", "benchmarks", *sys.argv[1:]]),
            "parts": self.parts,
            "rows": self.rows,
            "ratios": self.ratios,
            "targets": self.judged(),
        }
        return json.dumps(document, indent=2, sort_keys=False)

    def write(self, path: Path | None) -> None:
        """Write the JSON to ``path`` if one is given."""
        if path is not None:
            path.write_text(self.as_json() + "\n")

    def table(self) -> str:
        """The rows, ratios and targets as text, headed by machine and configuration.

        Rows that follow each other with the same fields share a table.
        """
        host = machine()
        head = [
            f"{self.name}: {host['cpu']}, {host['num_usable_cores']} usable cores, "
            f"torch threads {host['torch_threads']}",
            " ".join(f"{k}={v}" for k, v in versions().items()),
            " ".join(f"{k}={v}" for k, v in self.config.items()),
        ]
        ratios = [{"ratio": k, "value": v} for k, v in self.ratios.items()]
        blocks = [columns(list(rows)) for _, rows in groupby(self.rows, key=list)]
        last = [columns(ratios), columns(self.judged())]
        return "\n\n".join(["\n".join(head), *blocks, *(block for block in last if block)])


def choose_parts(parts: Sequence[str], known: Sequence[str]) -> tuple[str, ...]:
    """``parts``, or all that are ``known`` where none is named; raises UsageError for others."""
    unknown = [part for part in parts if part not in known]
    if unknown:
        raise UsageError(f"no part {', '.join(unknown)}; known: {', '.join(known)}")
    return tuple(part for part in known if not parts or part in parts)


def machine() -> dict[str, Any]:
    """The processor, usable cores, memory in bytes and torch's thread count."""
    import torch

    return {
        "cpu": _cpu_name(),
        "num_cores": os.cpu_count(),
        "num_usable_cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "platform": platform.platform(),
        "torch_threads": torch.get_num_threads(),
    }


def versions() -> dict[str, str]:
    """Python and the installed packages that decide the numbers."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def columns(rows: Sequence[Mapping[str, Any]]) -> str:
    """Aligned columns; numbers with four significant digits."""
    if not rows:
        return ""
    names = list(rows[0])
    cells = [names, *([_cell(row.get(name)) for name in names] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths)).rstrip() for line in cells)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or "unknown"
    names = [line.split(":", 1)[1].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()
