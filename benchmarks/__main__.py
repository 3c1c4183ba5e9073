"""``python -m benchmarks <name> [--quick] [--part NAME]... [--json FILE]``."""

from __future__ import annotations

import argparse
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

from adapters_store.errors import PatchbayError, UsageError
from adapters_store.lazy import resolve
from benchmarks.report import Report

BENCHMARKS: dict[str, str] = {
    "adaptation": "benchmarks.adaptation:run",
    "fairness": "benchmarks.fairness:run",
    "gpu": "benchmarks.gpu:run",
    "heterogeneity": "benchmarks.heterogeneity:run",
    "alignment": "benchmarks.alignment:run",
    "peers": "benchmarks.peers.run:run",
    "registry": "benchmarks.registry:run",
    "suite": "benchmarks.suite:run",
    "residency": "benchmarks.residency:run",
    "superni": "benchmarks.superni:run",
    "training_step": "benchmarks.training_step:run",
    "textcls": "benchmarks.textcls:run",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one benchmark, print its table and write its JSON; an error's exit code if it fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", help=f"one of: {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="finish within 60 s on two cores")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report there")
    parser.add_argument(
        "--part",
        action="append",
        default=[],
        metavar="NAME",
        help="run this part alone (may be repeated) and leave the others in FILE as they are",
    )
    options = parser.parse_args(arguments)
    try:
        run = resolve(BENCHMARKS, options.name, "benchmark")
        report = run(quick=options.quick, **_parts(run, options))
        if options.part and options.json is not None:
            _add_earlier(report, options.json)
    except PatchbayError as error:
        print(error.message, error.hint, sep="\n", file=sys.stderr)
        return error.exit_code
    report.write(options.json)
    print(report.table())
    return 0


def _add_earlier(report: Report, path: Path) -> None:
    """Take the other parts; what was measured is printed where they are another run's."""
    try:
        report.add_earlier(path)
    except UsageError:
        print(report.table())
        raise


def _parts(run: Callable[..., Report], options: argparse.Namespace) -> dict[str, list[str]]:
    if not options.part:
        return {}
    if "parts" not in inspect.signature(run).parameters:
        raise UsageError(f"--part: {options.name} comes in one part")
    return {"parts": options.part}


if __name__ == "__main__":
    raise SystemExit(main())
