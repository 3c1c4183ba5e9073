"""Files by line: what does not fit in memory, what is packed, and what changes underneath."""

from __future__ import annotations

import gzip
import json
import tracemalloc
from pathlib import Path

import pytest

from adapters_store.errors import TrainingError, UsageError
from training.recipe import TasksSection
from training.sampler import Curriculum, TaskBalancedSampler
from training.sources import load_tasks


def write_big(path: Path, num_rows: int) -> int:
    """A JSON Lines file of two tasks; returns its size in bytes."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(num_rows):
            row = {"task": "ab"[number % 2], "input": f"{number} " + "x" * 900, "output": "y"}
            file.write(json.dumps(row) + "\n")
    return path.stat().st_size


def test_a_big_file_is_opened_and_drawn_from_without_holding_its_rows(tmp_path: Path) -> None:
    size = write_big(tmp_path / "big.jsonl", 20_000)
    given = TasksSection(source="jsonl", path=str(tmp_path / "big.jsonl"))
    tracemalloc.start()
    try:
        tasks = load_tasks(given)
        sampler = TaskBalancedSampler(tasks, 8, 0, curriculum=Curriculum(steps=10))
        drawn = [row for step in range(4) for row in sampler.batch(step)]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [len(task.train) for task in tasks] == [10_000, 10_000]
    assert size > 18_000_000
    assert peak < size / 8
    assert all(int(e.input.split()[0]) % 2 == task for task, e in drawn)


def test_a_file_that_changes_under_a_run_is_an_error_not_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"input": "abc", "output": "y"}\n' * 3)
    (task,) = load_tasks(TasksSection(source="jsonl", path=str(path), name="t"))
    path.write_text("{")
    with pytest.raises(TrainingError, match=r"rows.jsonl, line \d: expected a JSON object"):
        list(task.train)


def test_a_torn_gzip_file_is_a_usage_error(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"input": "abc", "output": "y"}\n')[:-9])
    with pytest.raises(UsageError, match=r"cannot read .*rows\.jsonl\.gz"):
        load_tasks(TasksSection(source="jsonl", path=str(path), name="t"))
