"""What every benchmark writes: machine, versions, configuration, rows and ratios."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import groupby
from pathlib import Path
from typing import Any

_PACKAGES = ("torch", "transformers", "peft", "ray", "numpy", "sqlalchemy", "psycopg")


@dataclass(slots=True)
class Report:
    """One run; ``rows`` are measurements, ``ratios`` a flat object of name to number."""

    name: str
    config: Mapping[str, Any]
    rows: list[dict[str, Any]] = field(default_factory=list)
    ratios: dict[str, float] = field(default_factory=dict)

    def as_json(self) -> str:
        """The report as indented JSON, with machine and versions."""
        document = {
            "name": self.name,
            "machine": machine(),
            "versions": versions(),
            "config": dict(self.config),
            "command": " ".join(["python", "-m", "benchmarks", *sys.argv[1:]]),
            "rows": self.rows,
            "ratios": self.ratios,
        }
        return json.dumps(document, indent=2, sort_keys=False)

    def write(self, path: Path | None) -> None:
        """Write the JSON to ``path`` if one is given."""
        if path is not None:
            path.write_text(self.as_json() + "\n")

    def table(self) -> str:
        """The rows and ratios as text, headed by machine and configuration.

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
        return "\n\n".join(["\n".join(head), *blocks, columns(ratios)])


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
