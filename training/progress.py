"""How a run talks: a progress bar on a terminal, one line per interval elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from tqdm import tqdm

from training.loop import Report

_SHOWN = ("loss", "grad_norm", "dev")


@contextmanager
def progress(steps: int, *, is_shown: bool = True) -> Iterator[Report | None]:
    """A report for the loop that shows its records on stderr, or None."""
    if not is_shown:
        yield None
        return
    if not sys.stderr.isatty():
        yield _print_line
        return
    with tqdm(total=steps, unit="step", file=sys.stderr) as bar:

        def show(record: dict[str, Any]) -> None:
            bar.update(record["step"] - bar.n)
            bar.set_postfix({key: f"{record[key]:.4g}" for key in _SHOWN if key in record})

        yield show


def _print_line(record: dict[str, Any]) -> None:
    shown = "  ".join(f"{key} {record[key]:.4g}" for key in _SHOWN if key in record)
    print(f"step {record['step']}  {shown}", file=sys.stderr, flush=True)


def tell(notes: Mapping[str, Mapping[str, int]]) -> None:
    """Say on stderr how many rows of each task were skipped, cut or dropped."""
    for task, counts in notes.items():
        told = ", ".join(
            f"{count} {part} rows {what}"
            for name, count in counts.items()
            for part, what in [name.split("_")]
        )
        print(f"task {task}: {told}", file=sys.stderr, flush=True)
