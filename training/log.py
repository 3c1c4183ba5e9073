"""A run's ``log.jsonl``: one record a line, in the order of the steps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

LOG_FILE = "log.jsonl"


def add(folder: Path, record: dict[str, Any]) -> None:
    """Append a record; the folder is made where it is missing."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG_FILE).open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


def records(folder: Path) -> list[dict[str, Any]]:
    """Every record that was written whole; none without a log."""
    return [json.loads(line) for line in _lines(folder)]


def trim(folder: Path, done: int) -> None:
    """Drop the records of steps after ``done``: they are about to be made again."""
    if (folder / LOG_FILE).exists():
        kept = [line for line in _lines(folder) if json.loads(line)["step"] <= done]
        (folder / LOG_FILE).write_text("".join(kept), encoding="utf-8")


def _lines(folder: Path) -> list[str]:
    """Lines with their ends, without a last one whose writer was stopped in it."""
    path = folder / LOG_FILE
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.exists() else []
    return [line for line in lines if line.endswith("\n")]
