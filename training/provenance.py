"""What a run records of itself, so that it can be repeated: versions, machine and data."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from adapters_store.canonical import canonical_json, digest_of
from adapters_store.errors import TrainingError
from adapters_store.ledger.lineage import Lineage
from training.examples import Examples, spelling
from training.task import Task

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

_PACKAGES = ("patchbay", "torch", "transformers", "accelerate", "safetensors")


def versions() -> dict[str, str]:
    """Python and the installed packages that decide a run's numbers."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def environment() -> dict[str, Any]:
    """Versions, platform and the command line as given."""
    return {
        "versions": versions(),
        "platform": platform.platform(),
        "command": sys.argv,
    }


def data_digest(tasks: Iterable[Task]) -> str:
    """``sha256:<hex>`` over the tasks' names and every training and dev example, in order.

    Parts that were read from files give the digest that was taken then.
    """
    digest = hashlib.sha256()
    for task in tasks:
        digest.update(repr((task.name, task.labels)).encode())
        for part in (task.train, task.dev):
            if isinstance(part, Examples) and part.digest is not None:
                digest.update(part.digest)
                continue
            for example in part:
                digest.update(spelling(example))
    return "sha256:" + digest.hexdigest()


def data_record(tasks: Sequence[Task], notes: Mapping[str, Mapping[str, int]]) -> dict[str, Any]:
    """What a run's environment holds of its data: the digest, and by task the numbers of rows.

    ``notes`` counts the rows that were skipped, cut or dropped.
    """
    rows = {
        task.name: {
            "train": len(task.train),
            "dev": len(task.dev),
            "test": len(task.test),
            **notes.get(task.name, {}),
        }
        for task in tasks
    }
    return {"data": data_digest(tasks), "rows": rows}


def check_same_data(before: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Raise TrainingError where a run would go on with other data than it began with."""
    if before.get("data") in (None, now["data"]):
        return
    rows = before.get("rows", {})
    changed = [name for name, counts in now["rows"].items() if rows.get(name) != counts]
    raise TrainingError(
        f"the data of the run in {folder} changed since it began: digest {before['data']}, now "
        f"{now['data']}; other numbers of rows: {', '.join(changed[:5]) or 'none'}",
        hint="Restore the data, or train it from the start in another folder.",
    )


def lineage(
    config: BaseModel | DataclassInstance,
    tasks: Iterable[Task],
    *,
    seed: int,
    parents: Iterable[str] = (),
) -> dict[str, Any]:
    """What ``provenance["lineage"]`` holds for an artefact that was learnt from these tasks.

    ``config`` is everything else that decides the numbers: its canonical JSON is hashed.
    """
    document = config.model_dump(mode="json") if isinstance(config, BaseModel) else asdict(config)
    stated = Lineage(
        parents=tuple(parents),
        data_digest=data_digest(tasks),
        config_digest=digest_of(canonical_json(document)),
        seed=seed,
        versions=versions(),
    )
    return stated.model_dump(mode="json", exclude_none=True)
