"""``patchbay doctor``: what this machine and installation have, for a first look or a report."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any

import click

_DISTRIBUTIONS = (
    "patchbay",
    "torch",
    "transformers",
    "safetensors",
    "ray",
    "accelerate",
    "pydantic",
    "fastapi",
    "pyzmq",
    "sqlalchemy",
)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _bundled() -> dict[str, Any]:
    from patchbay.bundled import BANK_FOLDER, ROUTING_FOLDER

    routing = sorted(path.name for path in ROUTING_FOLDER.glob("*") if path.is_dir())
    return {"bank": BANK_FOLDER.is_dir(), "num_tasks": len(routing)}


def examine(store: Path) -> dict[str, Any]:
    """Facts about the machine, the versions and the store; nothing is started or changed."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "num_cores": os.cpu_count(),
        "memory_bytes": memory_bytes,
        "free_disk_bytes": shutil.disk_usage(Path.cwd()).free,
        "versions": {name: _version(name) for name in _DISTRIBUTIONS},
        "bundled": _bundled(),
        "store": {"path": str(store), "exists": (store / "catalog.sqlite").is_file()},
    }


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@click.option(
    "--store",
    type=click.Path(path_type=Path),
    envvar="PATCHBAY_STORE",
    default=Path("~/.patchbay"),
    help="Store to look for.",
)
def doctor(as_json: bool, store: Path) -> None:
    """Report on this machine and installation.

    Example: patchbay doctor --json
    """
    facts = examine(store.expanduser())
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    for name, value in facts.items():
        if isinstance(value, dict):
            click.echo(f"{name}:")
            for key, inner in value.items():
                click.echo(f"  {key:14} {'not installed' if inner is None else inner}")
        else:
            click.echo(f"{name:16} {value}")
