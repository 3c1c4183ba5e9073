"""A collection as a source: a YAML file that lists data sets with their prompts and caps.

The file has ``datasets``, a list of data sections, and ``defaults`` for what they leave out. Paths
in it start at its own folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from adapters_store.errors import UsageError
from training.sources.arrow import SUFFIXES
from training.sources.planning import Plan, options
from training.sources.sections import DataSection, faults, one_line


def plans(section: DataSection) -> list[Plan]:
    """The tasks of every data set of the file, in the file's order.

    The section's own ``num_*`` and ``seed`` are defaults of its data sets. Raises UsageError, with
    the number of the data set, for a file or a data set that cannot be understood, and for a
    collection inside itself.
    """
    from training.sources import plans as plans_of

    options(section, "path")
    if section.path is None:
        raise UsageError("tasks.path is missing: the YAML file of a `collection` source")
    path = Path(section.path)
    given = {
        key: getattr(section, key)
        for key in ("num_train", "num_dev", "num_test", "seed")
        if getattr(section, key) is not None
    }
    try:
        return [plan for one in _sections(path, given) for plan in plans_of(one)]
    except RecursionError as error:
        raise UsageError(f"collection {path} lists itself") from error


def _sections(path: Path, given: dict[str, Any]) -> list[DataSection]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read collection {path}: {one_line(error)}") from error
    if not isinstance(content, dict) or not isinstance(content.get("datasets"), list):
        raise UsageError(f"{path}: expected a mapping with datasets, a list, and defaults")
    if unknown := content.keys() - {"datasets", "defaults"}:
        raise UsageError(f"{path} has unknown keys {sorted(map(str, unknown))}")
    defaults = content.get("defaults") or {}
    if not isinstance(defaults, dict):
        raise UsageError(f"{path}: defaults is no mapping: {defaults!r:.60}")
    found = []
    for number, entry in enumerate(content["datasets"], 1):
        if not isinstance(entry, dict):
            raise UsageError(f"{path}, data set {number} is no mapping: {entry!r:.60}")
        try:
            merged = {"source": "datasets", **given, **defaults, **entry}
            found.append(DataSection.model_validate(_placed(merged, path.parent)))
        except ValidationError as error:
            told = "; ".join(faults(error))
            raise UsageError(f"{path}, data set {number}: {told}") from error
    return found


def _placed(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The entry with paths that lie under the folder made to start there; hub names stay."""
    placed = dict(entry)
    for key in ("path", "templates"):
        value = entry.get(key)
        if isinstance(value, str) and (key == "templates" or _is_here(folder, value, entry)):
            placed[key] = str(folder / value)
    return placed


def _is_here(folder: Path, value: str, entry: dict[str, Any]) -> bool:
    """A hub name is neither in the folder nor called like a path or a file."""
    is_named = value.startswith((".", "/")) or SUFFIXES.keys() & {*Path(value).suffixes}
    return entry["source"] != "datasets" or bool(is_named) or (folder / value).exists()
