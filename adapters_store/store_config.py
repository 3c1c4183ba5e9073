"""``store.yaml``: where a store keeps its catalog and its blobs, in a few keys.

Every problem of a file is collected and reported at once. Paths are relative to the file, and
``${VARIABLE}`` in a value stands for a variable of the environment.
"""

from __future__ import annotations

import dataclasses
import difflib
import os
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapters_store.errors import ConflictError, UsageError
from adapters_store.limits import DEFAULT_LIMITS, Limits
from adapters_store.location import (
    BLOB_FOLDER,
    CATALOG_FILE,
    CONFIG_FILE,
    DEFAULT_CACHE_BYTES,
    StoreConfig,
    location_path,
)
from adapters_store.refused import as_typed

MAX_RESTORE_WINDOW_DAYS = 36_500

LIMIT_KEYS = tuple(field.name for field in dataclasses.fields(Limits))
KEYS: dict[str, tuple[str, ...]] = {
    "catalog": (),
    "blobs": (),
    "s3": ("endpoint_url", "region"),
    "cache": ("folder", "max_bytes"),
    "limits": LIMIT_KEYS,
    "restore_window_days": (),
}

_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")


def read_config(file: Path) -> StoreConfig:
    """Read a ``store.yaml``; raises UsageError with every problem found."""
    return parse_config(_read_yaml(file), file)


def parse_config(read: Any, file: Path) -> StoreConfig:
    """The configuration in a mapping that ``file`` holds; raises UsageError as ``read_config``."""
    reader = _Reader(file)
    config = reader.parse(read)
    if reader.problems:
        raise UsageError(
            f"the store's configuration {file}: {'; '.join(reader.problems)}",
            hint="docs/registry/storage.md lists the keys.",
        )
    return config


def write_store_config(
    folder: str | Path,
    *,
    catalog: str | None = None,
    blobs: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Path:
    """Write ``store.yaml`` into a folder, which is made; returns the file.

    ``settings`` are further keys, such as ``{"s3": {"region": "eu-west-1"}}``. A file that says the
    same is left alone. Raises ConflictError where another one is there or where it would hide what
    the folder holds already, UsageError for values that ``read_config`` would refuse.
    """
    import yaml

    file = location_path(folder) / CONFIG_FILE
    given = {"catalog": catalog, "blobs": blobs, **(settings or {})}
    document = {key: value for key, value in given.items() if value is not None}
    config = parse_config(document, file)
    if file.exists():
        if _read_yaml(file) == document:
            return file
        raise ConflictError(
            f"{file} is there and says something else", hint="Edit that file, or remove it first."
        )
    for part, name in ((config.catalog, CATALOG_FILE), (config.blobs, BLOB_FOLDER)):
        if _holds_files(file.parent / name) and Path(part) != (file.parent / name).absolute():
            raise ConflictError(
                f"{file.parent} holds a store already, whose {name} would be hidden",
                hint="Choose another folder; artefacts move with `adapters pull` and `push`.",
            )
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=file.parent, encoding="utf-8") as written:
            yaml.safe_dump(document, written, sort_keys=False)
            written.flush()
            os.chmod(written.name, 0o644)
            os.link(written.name, file)
    except OSError as error:
        if file.exists():
            raise ConflictError(f"{file} was written by another program meanwhile") from error
        raise as_typed(error, f"cannot write {file}") from error
    return file


def _holds_files(path: Path) -> bool:
    """True for a file, and for a folder with a file anywhere below."""
    return path.is_file() or any(below.is_file() for below in path.rglob("*"))


def _read_yaml(file: Path) -> Any:
    """What a YAML file holds; a key that stands twice is an error."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            keys = [self.construct_object(key, deep=True) for key, _ in node.value]
            repeated = next((key for key in keys if keys.count(key) > 1), None)
            if repeated is not None:
                raise yaml.YAMLError(f"the key {repeated!r} stands twice")
            return super().construct_mapping(node, deep)

    try:
        with file.open(encoding="utf-8") as opened:
            read = yaml.load(opened, Loader)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"cannot read the store's configuration {file}: {error}") from error
    return {} if read is None else read


class _Reader:
    """Reads one file's values and collects what is wrong with them."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.problems: list[str] = []

    def parse(self, read: Any) -> StoreConfig:
        values = self._mapping(read, "the file", tuple(KEYS))
        s3 = self._section(values, "s3")
        cache = self._section(values, "cache")
        limits = self._section(values, "limits")
        blobs = self._place(values, "blobs", BLOB_FOLDER, "s3")
        if "s3" in values and not blobs.startswith("s3://"):
            self.problems.append(f"s3: settings for blobs in S3, but blobs are in {blobs}")
        cache_folder = self._text(cache, "cache.folder")
        if "cache" in values and cache_folder is None:
            self.problems.append("cache: expected the key folder")
        return StoreConfig(
            location=self.file,
            catalog=self._place(values, "catalog", CATALOG_FILE, "postgresql"),
            blobs=blobs,
            s3_endpoint_url=self._text(s3, "s3.endpoint_url"),
            s3_region=self._text(s3, "s3.region"),
            cache_folder=None if cache_folder is None else self._path(cache_folder),
            cache_bytes=self._count(cache, "cache.max_bytes", DEFAULT_CACHE_BYTES),
            limits=Limits(
                **{
                    key: self._count(limits, f"limits.{key}", getattr(DEFAULT_LIMITS, key))
                    for key in LIMIT_KEYS
                }
            ),
            restore_window_days=self._days(values),
        )

    def _section(self, values: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        return self._mapping(values.get(key, {}), key, KEYS[key])

    def _mapping(self, value: Any, what: str, known: tuple[str, ...]) -> Mapping[str, Any]:
        if not isinstance(value, dict):
            self.problems.append(f"{what}: expected keys and values, found {value!r}")
            return {}
        for key in value:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                guess = f", did you mean {near[0]!r}?" if near else f", known: {', '.join(known)}"
                self.problems.append(f"{what}: unknown key {key!r}{guess}")
        return value

    def _text(self, section: Mapping[str, Any], key: str) -> str | None:
        name = key.rpartition(".")[2]
        if name not in section:
            return None
        value = section[name]
        if not isinstance(value, str) or not value:
            self.problems.append(f"{key}: expected text, found {value!r}")
            return None
        # The catalog fills its URL in itself, part by part, so that a password may hold anything.
        return value if value.startswith("postgresql://") else self._filled(key, value)

    def _filled(self, key: str, text: str) -> str:
        def value_of(match: re.Match[str]) -> str:
            value = os.environ.get(match[1])
            if value is None:
                self.problems.append(f"{key}: the environment variable {match[1]} is not set")
            return value or ""

        return _VARIABLE.sub(value_of, text)

    def _place(self, values: Mapping[str, Any], key: str, default: str, scheme: str) -> str:
        text = self._text(values, key) or default
        if "://" not in text:
            return str(self._path(text))
        if text.startswith("file://"):
            return str(location_path(text))
        if not text.startswith(f"{scheme}://"):
            where = text.partition("://")[0]
            self.problems.append(f"{key}: a {where}:// URL; expected a path or {scheme}://")
        return text

    def _path(self, text: str) -> Path:
        return (self.file.parent.absolute() / Path(text).expanduser()).absolute()

    def _count(self, section: Mapping[str, Any], key: str, default: int) -> int:
        value = section.get(key.rpartition(".")[2], default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            self.problems.append(f"{key}: expected a whole number above 0, found {value!r}")
            return default
        return value

    def _days(self, values: Mapping[str, Any]) -> float | None:
        value = values.get("restore_window_days")
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.problems.append(f"restore_window_days: expected a number, found {value!r}")
        elif not 0 <= value <= MAX_RESTORE_WINDOW_DAYS:
            self.problems.append(
                f"restore_window_days: expected 0 to {MAX_RESTORE_WINDOW_DAYS}, found {value!r}"
            )
        else:
            return float(value)
        return None
