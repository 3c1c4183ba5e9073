"""``python -m benchmarks <name> [--quick] [--json FILE]``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from adapters_store.errors import UsageError
from adapters_store.lazy import resolve

BENCHMARKS: dict[str, str] = {
    "adaptation": "benchmarks.adaptation:run",
    "fairness": "benchmarks.fairness:run",
    "heterogeneity": "benchmarks.heterogeneity:run",
    "alignment": "benchmarks.alignment:run",
    "registry": "benchmarks.registry:run",
    "suite": "benchmarks.suite:run",
    "residency": "benchmarks.residency:run",
    "superni": "benchmarks.superni:run",
    "training_step": "benchmarks.training_step:run",
    "textcls": "benchmarks.textcls:run",
}


def main(arguments: list[str] | None = None) -> int:
    """Run one benchmark, print its table and write its JSON; 2 for an unknown name."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("name", help=f"one of: {', '.join(BENCHMARKS)}")
    parser.add_argument("--quick", action="store_true", help="finish within 60 s on two cores")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the report there")
    options = parser.parse_args(arguments)
    try:
        run = resolve(BENCHMARKS, options.name, "benchmark")
    except UsageError as error:
        print(error.message, file=sys.stderr)
        return error.exit_code
    report = run(quick=options.quick)
    report.write(options.json)
    print(report.table())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
