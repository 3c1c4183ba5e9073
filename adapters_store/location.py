"""Where a store stands: a folder, or a ``store.yaml`` that says where its parts are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from adapters_store.blobs import BLOBS, Blobs
from adapters_store.blobs.folders import make_folder
from adapters_store.catalog import open_catalog
from adapters_store.errors import NotFoundError, UsageError
from adapters_store.lazy import resolve
from adapters_store.limits import DEFAULT_LIMITS, GIB, Limits
from adapters_store.refused import as_typed

if TYPE_CHECKING:
    from adapters_store.catalog.database import Database

CONFIG_FILE = "store.yaml"
CATALOG_FILE = "catalog.sqlite"
BLOB_FOLDER = "blobs"
DEFAULT_CACHE_BYTES = 10 * GIB

_ABSENT_HINT = "Give --store or PATCHBAY_STORE; pushing an artefact creates a store."


@dataclass(frozen=True, slots=True)
class StoreConfig:
    """Where a store's parts are: paths are absolute, URLs as they were given.

    ``catalog`` is a SQLite file or ``postgresql://``, ``blobs`` a folder or ``s3://``; without a
    ``cache_folder`` blobs are read from where they are. ``restore_window_days`` None leaves the
    window to what the catalog says. ``location`` is the folder or file that this was read from.
    """

    location: Path
    catalog: str
    blobs: str
    s3_endpoint_url: str | None = None
    s3_region: str | None = None
    cache_folder: Path | None = None
    cache_bytes: int = DEFAULT_CACHE_BYTES
    limits: Limits = DEFAULT_LIMITS
    restore_window_days: float | None = None


def location_path(location: str | Path) -> Path:
    """The path of a store's location; raises UsageError for a URL scheme other than ``file``."""
    text = str(location)
    if "://" not in text:
        return Path(text).expanduser()
    parts = urlsplit(text)
    if parts.scheme != "file" or parts.netloc not in ("", "localhost"):
        # The rest of a URL may hold a password.
        raise UsageError(
            f"store location {parts.scheme}://...; expected a folder, a {CONFIG_FILE} or a "
            "file:/// URL of one",
            hint=f"What is elsewhere, such as blobs in S3, is named in a {CONFIG_FILE}.",
        )
    return Path(unquote(parts.path))


def find_config(location: str | Path) -> StoreConfig:
    """What a location means: a YAML file, a folder that holds ``store.yaml``, or a plain folder.

    Raises UsageError for another location and for a file that cannot be understood, NotFoundError
    for a YAML file that is not there.
    """
    path = location_path(location)
    is_named = path.suffix in (".yaml", ".yml") and not path.is_dir()
    file = path if is_named else path / CONFIG_FILE
    if file.is_file():
        from adapters_store.store_config import read_config

        return read_config(file)
    if is_named:
        raise NotFoundError(f"no store at {path}: the file is not there", hint=_ABSENT_HINT)
    return StoreConfig(path, str(path / CATALOG_FILE), str(path / BLOB_FOLDER))


def open_parts(config: StoreConfig, *, create: bool, limits: Limits) -> tuple[Database, Blobs]:
    """Open a store's catalog and blobs; raises NotFoundError without ``create`` and a catalog."""
    is_file = "://" not in config.catalog
    if is_file and not create and not Path(config.catalog).is_file():
        raise NotFoundError(f"no store at {config.location}", hint=_ABSENT_HINT)
    if is_file:
        folder = Path(config.catalog).parent
        try:
            make_folder(folder)
        except OSError as error:
            raise as_typed(error, f"cannot make a store at {folder}") from error
    blobs = open_blobs(config, max_bytes=limits.max_data_bytes)
    return open_catalog(config.catalog, create=create), blobs


def open_blobs(config: StoreConfig, *, max_bytes: int) -> Blobs:
    """The blobs that a configuration names, behind its cache where it names one."""
    blobs: Blobs
    if config.blobs.startswith("s3://"):
        blobs = resolve(BLOBS, "s3", "blob store")(
            config.blobs,
            endpoint_url=config.s3_endpoint_url,
            region=config.s3_region,
            max_bytes=max_bytes,
        )
    else:
        blobs = resolve(BLOBS, "local", "blob store")(config.blobs, max_bytes=max_bytes)
    if config.cache_folder is None:
        return blobs
    cached: Blobs = resolve(BLOBS, "cached", "blob store")(
        blobs, config.cache_folder, max_bytes=config.cache_bytes
    )
    return cached
