"""``patchbay bench``: the benchmarks of a source checkout, each in a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import click

from adapters_store.errors import UnavailableError


@click.command("bench", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> None:
    """Run ``python -m benchmarks ARGUMENTS`` (a name, --quick, --part NAME, --json FILE).

    Example: patchbay bench heterogeneity --quick
    """
    if importlib.util.find_spec("benchmarks") is None:
        raise UnavailableError(
            "the benchmarks are not installed here",
            hint="Run this from a source checkout: they live in its benchmarks/ folder.",
        )
    raise SystemExit(subprocess.call([sys.executable, "-m", "benchmarks", *arguments]))
