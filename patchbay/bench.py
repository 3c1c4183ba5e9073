"""``patchbay bench``: the benchmarks of a source checkout, each in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click

from adapters_store.errors import UnavailableError


@click.command("bench", context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> None:
    """Run ``python -m benchmarks ARGUMENTS`` (a name, --quick, --part NAME, --json FILE).

    Example: patchbay bench heterogeneity --quick
    """
    checkout = Path(__file__).resolve().parents[1]
    if not (checkout / "benchmarks" / "__main__.py").is_file():
        raise UnavailableError(
            "the benchmarks are not installed here",
            hint="Run this from a source checkout: they live in its benchmarks/ folder.",
        )
    paths = [str(checkout), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "benchmarks", *arguments]
    raise SystemExit(subprocess.call(command, env=environment))
