"""Metrics of the whole cluster: every replica leaves a snapshot in a shared folder.

A replica rewrites its file once a second; a file older than :data:`STALE_S` belongs to a replica
that is gone and is removed. Whichever replica is asked for ``/metrics`` merges the others'
snapshots with its own live values, under the label ``replica``.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import TypedDict

from prometheus_client import CollectorRegistry

STALE_S = 10.0
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Family(TypedDict):
    """One metric family in text form: type, help and finished sample lines."""

    type: str
    help: str
    lines: list[str]


Snapshot = dict[str, Family]


def snapshot(registry: CollectorRegistry, replica: str) -> Snapshot:
    """Every family of ``registry`` with the label ``replica`` on each sample."""
    families: Snapshot = {}
    for metric in registry.collect():
        name = metric.name + ("_total" if metric.type == "counter" else "")
        lines = [
            f"{sample.name}{_labels({**sample.labels, 'replica': replica})} {_number(sample.value)}"
            for sample in metric.samples
            if not sample.name.endswith("_created")
        ]
        families[name] = {"type": metric.type, "help": metric.documentation, "lines": lines}
    return families


def render(snapshots: list[Snapshot]) -> str:
    """Prometheus text of several snapshots, each family once with the samples of all replicas."""
    merged: Snapshot = {}
    for one in snapshots:
        for name, family in one.items():
            held = merged.setdefault(
                name, {"type": family["type"], "help": family["help"], "lines": []}
            )
            held["lines"].extend(family["lines"])
    text: list[str] = []
    for name, family in sorted(merged.items()):
        text += [f"# HELP {name} {family['help']}", f"# TYPE {name} {family['type']}"]
        text += family["lines"]
    return "\n".join(text) + "\n"


class SnapshotFolder:
    """The shared folder; ``replica`` names this process's file and must be a safe file name."""

    def __init__(self, folder: Path, replica: str) -> None:
        self._folder, self._replica = folder, replica
        folder.mkdir(parents=True, exist_ok=True)

    def write(self, own: Snapshot) -> None:
        """Replace this replica's file atomically."""
        partial = self._folder / f".{self._replica}.partial"
        partial.write_text(json.dumps(own), encoding="utf-8")
        os.replace(partial, self._folder / f"{self._replica}.json")

    def read_others(self) -> list[Snapshot]:
        """Fresh snapshots of the other replicas; stale files are removed."""
        found: list[Snapshot] = []
        for file in sorted(self._folder.glob("*.json")):
            if file.stem == self._replica:
                continue
            try:
                if time.time() - file.stat().st_mtime > STALE_S:
                    file.unlink()
                else:
                    found.append(json.loads(file.read_text(encoding="utf-8")))
            except FileNotFoundError:
                continue
        return found

    def remove(self) -> None:
        """Take this replica's file away when it stops."""
        (self._folder / f"{self._replica}.json").unlink(missing_ok=True)


def _number(value: float) -> str:
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(float(value))


def _labels(labels: dict[str, str]) -> str:
    return "{" + ",".join(f'{key}="{_escape(value)}"' for key, value in labels.items()) + "}"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
