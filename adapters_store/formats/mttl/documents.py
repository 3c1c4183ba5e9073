"""Files of mttl's folders: which are there, and what its configurations say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters_store.canonical import strict_json
from adapters_store.errors import InvalidArtefactError
from adapters_store.formats.mttl import MAX_CONFIG_BYTES, PICKLE
from adapters_store.formats.source import Source, read_file

WEIGHTS = ".safetensors"


def read_object(source: Source, name: str) -> Mapping[str, Any]:
    """A JSON object of the source; raises InvalidArtefactError for anything else."""
    found = strict_json(read_file(source, name, MAX_CONFIG_BYTES), name)
    if not isinstance(found, dict):
        raise InvalidArtefactError(f"{name} in {source.location} is not a JSON object")
    return found


def try_object(source: Source, name: str) -> Mapping[str, Any]:
    """As :func:`read_object`, empty where the file is absent or no JSON object."""
    if name not in source.sizes():
        return {}
    try:
        return read_object(source, name)
    except InvalidArtefactError:
        return {}


def object_in(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """An object of a document, empty where it is absent or something else."""
    found = document.get(key)
    return found if isinstance(found, dict) else {}


def unconverted(name: str) -> str:
    """What is said of a pickle."""
    return (
        f"{name} is a pickle and is not opened; run `patchbay adapters convert` on the folder to "
        f"get {name.removesuffix(PICKLE)}{WEIGHTS}"
    )


def files(source: Source, ending: str) -> list[str]:
    """The names at the top of a source that end so, sorted."""
    return sorted(name for name in source.sizes() if name.endswith(ending) and "/" not in name)
