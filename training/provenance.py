"""What a run records of itself, so that it can be repeated: versions, machine and data."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from training.task import Task

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
    """``sha256:<hex>`` over the tasks' names and every training and dev example, in order."""
    digest = hashlib.sha256()
    for task in tasks:
        digest.update(repr((task.name, task.labels)).encode())
        for example in (*task.train, *task.dev):
            digest.update(repr((example.input, example.output)).encode())
    return "sha256:" + digest.hexdigest()
