"""Hugging Face ``datasets`` as a source: a saved folder, local files, or a data set of the hub.

Rows lie in Arrow files that are mapped into memory, not read into it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from adapters_store.errors import UnavailableError, UsageError
from training.examples import Row, Rows
from training.sources.planning import (
    Plan,
    check_splits,
    grouped,
    options,
    planned,
    publishable,
    renamed,
    splits_of,
)
from training.sources.sections import DataSection
from training.sources.templates import prompts_of

_USUAL = {"train": "train", "dev": "validation", "test": "test"}
SUFFIXES = {
    ".parquet": "parquet",
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".arrow": "arrow",
}


class ArrowRows:
    """One split; ``classes`` are the names of its class columns."""

    def __init__(self, name: str, dataset: Any) -> None:
        self.name, self.dataset = name, dataset
        self.classes: Mapping[str, Sequence[str]] = {
            column: tuple(feature.names)
            for column, feature in dataset.features.items()
            if hasattr(feature, "names")
        }

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Row:
        row: Row = self.dataset[index]
        return row

    def where(self, index: int) -> str:
        """Data set, split and row, from 0."""
        return f"{self.name}, row {index}"


def plans(section: DataSection) -> list[Plan]:
    """The tasks of one data set: one, or one for each value of ``fields.task``.

    A column of classes that is the output gives the tasks' labels. Raises UsageError for a data
    set or split that is not there, UnavailableError where the hub is out of reach.
    """
    options(
        section,
        *("path", "config", "revision", "name", "fields", "splits", "templates"),
        *("template_tasks", "labels", "has_labels", "max_train_per_dataset"),
    )
    if section.path is None:
        raise UsageError("tasks.path is missing: the folder, file or name of a `datasets` source")
    found = _opened(section, section.path)
    splits, fields = splits_of(section, _USUAL), section.fields
    if fields.part is None:
        check_splits(section, found, filter(None, [splits["train"]]))
    parts: dict[str, Rows] = {
        split: ArrowRows(f"{section.path}[{split}]", rows)
        for split, rows in found.items()
        if fields.part is not None or split in splits.values()
    }
    name = section.name or publishable(_name(section.path, section.config))
    tasks = grouped(parts, fields, None if fields.task and not section.name else name)
    if fields.part is not None:
        check_splits(section, {part for own in tasks.values() for part in own})
    only = fields.part is None or section.splits is not None
    labels = None if section.templates else _labels(parts, fields.output)
    return planned(
        {task: renamed(own, splits, task, only=only) for task, own in sorted(tasks.items())},
        section,
        prompts_of(section),
        labels,
    )


def _labels(parts: Mapping[str, Rows], output: str | None) -> Sequence[str] | None:
    column = output or "label"
    return next((rows.classes[column] for rows in parts.values() if column in rows.classes), None)


def _name(path: str, config: str | None) -> str:
    stem = path.rstrip("/").rsplit("/", 1)[-1].split(".")[0]
    return stem if config is None else f"{stem}.{config}"


def _opened(section: DataSection, path: str) -> dict[str, Any]:
    """The data set's splits by name."""
    try:
        import datasets
    except ImportError as error:
        raise UsageError(
            "a `datasets` source needs the package datasets",
            hint="Install it: pip install 'patchbay[data]'.",
        ) from error
    try:
        found = _loaded(datasets, section, path)
    except ConnectionError as error:
        raise UnavailableError(f"cannot reach data set {path}: {error}") from error
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        cause = f"; {error.__cause__}" if error.__cause__ else ""
        raise UsageError(f"cannot open data set {path}: {error}{cause}") from error
    return dict(found) if isinstance(found, datasets.DatasetDict) else {"train": found}


def _loaded(datasets: Any, section: DataSection, path: str) -> Any:
    local = Path(path)
    is_saved = local.is_dir() and any(
        (local / name).is_file() for name in ("dataset_dict.json", "state.json")
    )
    suffix = next((one for one in reversed(local.suffixes) if one in SUFFIXES), None)
    is_file = suffix is not None and not local.is_dir()
    if (section.config and (is_saved or is_file)) or (
        section.revision and (local.exists() or is_file)
    ):
        raise UsageError(f"{path} lies here; config and revision choose from the hub")
    if is_saved:
        return datasets.load_from_disk(path)
    if suffix is not None and is_file:
        extra = {"sep": "\t"} if suffix == ".tsv" else {}
        return datasets.load_dataset(SUFFIXES[suffix], data_files=path, **extra)
    return datasets.load_dataset(path, section.config, revision=section.revision)
