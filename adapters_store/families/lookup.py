"""From the paths that other software writes to the places of a backbone.

A file may name modules as another model class has them (``bert.encoder...``), or as another
version of transformers did; a family's prefixes and renames say how. No path is guessed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, TypeVar

from adapters_store.canonical import canonical_json
from adapters_store.families.anatomy import Attention, Block, Vector
from adapters_store.families.family import Family
from adapters_store.families.site import Site

MAX_PATH_LENGTH = 500
Place = TypeVar("Place", Site, Vector, Block, Attention)


class Lookup:
    """The places of one backbone by path; make it once per file, a question costs microseconds.

    Each question takes a dotted path and answers None where no place, or more than one, has it.
    """

    def __init__(self, family: Family, config: Mapping[str, Any]) -> None:
        anatomy = family.anatomy(config)
        self._prefixes = family.prefixes
        self._renames = [(re.compile(pattern), new) for pattern, new in family.renames]
        self._sites = {one.module_path: one for one in family.sites(config)}
        self._vectors = {one.parameter_path: one for one in anatomy.vectors}
        self._blocks = {one.output_path: one for one in anatomy.blocks}
        self._attentions = {one.module_path: one for one in anatomy.attentions}

    def site(self, path: str) -> Site | None:
        """The linear site at a module path."""
        return self._find(self._sites, path)

    def vector(self, path: str) -> Vector | None:
        """The vector at a parameter path, such as ``...LayerNorm.weight``."""
        return self._find(self._vectors, path)

    def block(self, path: str) -> Block | None:
        """The block whose ``f`` is the output of the module at that path."""
        return self._find(self._blocks, path)

    def attention(self, path: str) -> Attention | None:
        """The attention that projects and attends in the module at that path."""
        return self._find(self._attentions, path)

    def _find(self, places: Mapping[str, Place], path: str) -> Place | None:
        if path in places:
            return places[path]
        if len(path) > MAX_PATH_LENGTH:
            return None
        found = {places[one] for one in self._spellings(path) if one in places}
        return found.pop() if len(found) == 1 else None

    def _spellings(self, path: str) -> Iterator[str]:
        """The path as it is and renamed, then without each prefix that it begins with."""
        yield path
        yield self._renamed(path)
        for prefix in self._prefixes:
            if path.startswith(prefix):
                yield from self._spellings(path.removeprefix(prefix))

    def _renamed(self, path: str) -> str:
        for pattern, new in self._renames:
            path = pattern.sub(new, path)
        return path


def lookup(family: Family, config: Mapping[str, Any]) -> Lookup:
    """The lookup of a backbone, kept for the next call; raises what the family's tables raise."""
    return _kept(family, canonical_json(dict(config)))


def find_site(family: Family, config: Mapping[str, Any], path: str) -> Site | None:
    """The linear site at a module path of any version or class of the model, or None."""
    return lookup(family, config).site(path)


def find_vector(family: Family, config: Mapping[str, Any], path: str) -> Vector | None:
    """The vector at a parameter path of any version or class of the model, or None."""
    return lookup(family, config).vector(path)


@lru_cache(maxsize=32)
def _kept(family: Family, config_json: bytes) -> Lookup:
    config: dict[str, Any] = json.loads(config_json)
    return Lookup(family, config)
