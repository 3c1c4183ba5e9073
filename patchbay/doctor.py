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


def _store(location: str) -> dict[str, Any]:
    from adapters_store.errors import PatchbayError
    from adapters_store.location import find_config

    try:
        config = find_config(location)
    except PatchbayError as error:
        return {"path": location, "problem": error.message}
    path = str(config.location)
    if "://" in config.catalog:
        return {"path": path, "catalog": config.catalog.partition("://")[0]}
    return {"path": path, "catalog": "sqlite", "exists": Path(config.catalog).is_file()}


def examine(store: str) -> dict[str, Any]:
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
        "store": _store(store),
    }


@click.command("doctor")
@click.option("--json", "as_json", is_flag=True, help="Machine-readable output.")
@click.option(
    "--store",
    metavar="PATH",
    envvar="PATCHBAY_STORE",
    default="~/.patchbay",
    help="Store to look for.",
)
def doctor(as_json: bool, store: str) -> None:
    """Report on this machine and installation.

    Example: patchbay doctor --json
    """
    facts = examine(store)
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
