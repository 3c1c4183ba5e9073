"""``adapter_config.json`` of ``adapters``: who was adapted, and with which methods."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters_store.canonical import strict_json
from adapters_store.errors import InvalidArtefactError
from adapters_store.formats.adapterhub.activations import UNVERSIONED
from adapters_store.formats.adapterhub.draft import short
from adapters_store.formats.source import Source, read_file
from adapters_store.limits import Limits

CONFIG_FILE = "adapter_config.json"
_RELEASE = re.compile(r"adapters\.(\d{1,6})\.(\d{1,6})\.(\d{1,6})(\D.*)?")
_SCALED_RIGHT = (1, 1, 0)
_MAX_NAME = 100
_MAX_MEMBERS = 16


@dataclass(frozen=True, slots=True)
class Document:
    """The file's fields. ``members`` are the mappings of options, more than one in a union.

    ``scales_wrongly`` is True where the library's release trained LoRA with another scale than it
    wrote, which its own loader mends; None where the release cannot be told.
    """

    name: str
    model_type: str
    hidden_size: int | None
    members: tuple[Mapping[str, Any], ...]
    is_union: bool
    is_text_task: bool
    model_name: str
    version: str | None
    scales_wrongly: bool | None


def read_json(source: Source, file: str, limits: Limits) -> dict[str, Any]:
    """A JSON object; raises InvalidArtefactError for anything else."""
    document = strict_json(read_file(source, file, limits.max_manifest_bytes), file)
    if not isinstance(document, dict):
        raise InvalidArtefactError(f"{file} is not a JSON object")
    return document


def parse(raw: Mapping[str, Any]) -> Document:
    """The fields of the file's object; raises InvalidArtefactError where one is not readable."""
    name, config, version = raw.get("name"), raw.get("config"), raw.get("version")
    if not isinstance(name, str) or not 0 < len(name) <= _MAX_NAME or "." in name:
        raise InvalidArtefactError(f"name in {CONFIG_FILE} is {short(name)}; expected a word")
    if not isinstance(config, dict):
        raise InvalidArtefactError(
            f"config in {CONFIG_FILE} is {short(config)}; expected an object with every option"
        )
    if version is not None and not isinstance(version, str):
        raise InvalidArtefactError(f"version in {CONFIG_FILE} is {short(version)}; expected text")
    is_union = config.get("architecture") == "union"
    members = config.get("configs") if is_union else [config]
    if not isinstance(members, list) or not all(isinstance(item, dict) for item in members):
        raise InvalidArtefactError(f"config.configs in {CONFIG_FILE} is not a list of objects")
    if len(members) > _MAX_MEMBERS:
        raise InvalidArtefactError(
            f"config.configs in {CONFIG_FILE} has {len(members)} members; "
            f"{_MAX_MEMBERS} are allowed"
        )
    if version is None and not is_union:
        members = [_in_present_words(config)]
    size = raw.get("hidden_size")
    return Document(
        name=name,
        model_type=str(raw.get("model_type")),
        hidden_size=size if isinstance(size, int) else None,
        members=tuple(members),
        is_union=is_union,
        is_text_task=raw.get("type") == "text_task",
        model_name=str(raw.get("model_name") or ""),
        version=version,
        scales_wrongly=_scales_wrongly(version),
    )


def _in_present_words(config: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a file without a version, where some activations had other names."""
    named = config.get("non_linearity")
    if isinstance(named, str) and named in UNVERSIONED:
        return {**config, "non_linearity": UNVERSIONED[named]}
    return dict(config)


def _scales_wrongly(version: str | None) -> bool | None:
    if version is None or not version.startswith("adapters."):
        return False
    found = _RELEASE.fullmatch(version)
    if found is None:
        return None
    release = tuple(int(number) for number in found.groups()[:3])
    if release == _SCALED_RIGHT and found[4]:
        return None
    return release < _SCALED_RIGHT
