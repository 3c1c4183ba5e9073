"""Backbones: a frozen model's folder as the rest of the product sees it, without torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Self

from adapters_store.canonical import canonical_json, strict_json
from adapters_store.errors import InvalidArtefactError, NotFoundError
from adapters_store.families import Architecture, Family, Site, family_of, load_family
from adapters_store.families.shapes import BackboneShapes
from adapters_store.fingerprint import fingerprint, weight_files
from adapters_store.names import check_name


@dataclass(frozen=True, slots=True)
class BackboneRecord:
    """What a store keeps of a backbone: enough to validate artefacts, no weights.

    ``config`` is the mapping of its config.json; ``created_at`` is ISO 8601 in UTC, empty before
    the record is stored.
    """

    name: str
    fingerprint: str
    family: str
    config: Mapping[str, Any]
    created_at: str = ""

    def as_json(self) -> dict[str, str]:
        """The stable JSON form of listings, without the configuration."""
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "family": self.family,
            "created_at": self.created_at,
        }

    @property
    def shapes(self) -> BackboneShapes:
        """Every named place with its sizes, as parts read them."""
        return _describe(self.family, canonical_json(dict(self.config)))

    @property
    def architecture(self) -> Architecture:
        """The engine's record of the whole model; raises IncompatibleError if it runs none."""
        return load_family(self.family).architecture(self.config)


@dataclass(frozen=True)
class Backbone:
    """A backbone in a folder. ``sites`` is in execution order; ``fingerprint`` is its identity."""

    folder: Path
    name: str
    config: Mapping[str, Any]
    family: Family
    sites: dict[str, Site]
    fingerprint: str

    @classmethod
    def from_folder(cls, path: str | Path, *, name: str | None = None) -> Self:
        """Read config.json and hash the ``*.safetensors`` of a Hugging Face model folder.

        ``name`` defaults to the folder's name in the grammar of names. Raises NotFoundError for
        a missing folder, InvalidArtefactError or UnsafeArtefactError for one that holds no sound
        model, IncompatibleError for a model type without a family.
        """
        folder = Path(path)
        config_path = folder / "config.json"
        if not config_path.is_file():
            raise NotFoundError(
                f"no backbone at {folder}: config.json is missing",
                hint="Give a folder written by save_pretrained.",
            )
        config = strict_json(config_path.read_bytes(), f"{config_path}")
        if not isinstance(config, dict):
            raise InvalidArtefactError(f"{config_path} is not a JSON object")
        family = family_of(config)
        return cls(
            folder=folder,
            name=check_name(name or default_name(folder), "backbone name"),
            config=config,
            family=family,
            sites={site.name: site for site in family.sites(config)},
            fingerprint=fingerprint(config, weight_files(folder)),
        )

    @property
    def record(self) -> BackboneRecord:
        """What a store keeps of this backbone."""
        return BackboneRecord(self.name, self.fingerprint, self.family.name, self.config)

    @cached_property
    def shapes(self) -> BackboneShapes:
        """Every named place with its sizes, as parts read them."""
        return BackboneShapes(self.sites, self.family.anatomy(self.config))

    @cached_property
    def architecture(self) -> Architecture:
        """The engine's record of the whole model; raises IncompatibleError if it runs none."""
        return self.family.architecture(self.config)


def default_name(folder: Path) -> str:
    """A legal name from a folder's name; ``backbone`` where nothing of it is legal."""
    text = re.sub(r"[^a-z0-9._-]+", "-", folder.resolve().name.lower()).lstrip("._-")
    return text[:63] or "backbone"


@lru_cache(maxsize=32)
def _describe(family_name: str, config_json: bytes) -> BackboneShapes:
    config = strict_json(config_json, "config.json")
    if not isinstance(config, dict):
        raise InvalidArtefactError("config.json is not a JSON object")
    family = load_family(family_name)
    sites = {site.name: site for site in family.sites(config)}
    return BackboneShapes(sites, family.anatomy(config))
