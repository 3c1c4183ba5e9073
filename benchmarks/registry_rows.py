"""Catalog rows in bulk: many tenants' names and versions without their blobs. Repeatable.

Each tenant has the same number of names, each name ``VERSIONS_PER_NAME`` versions of a routing over
one bank; every digest is a sha256, so that look-ups by digest are as scattered as real ones. Every
second name has its alias ``prod`` on version 2, every tenth name lost its newest version.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass
from typing import Any

from sqlalchemy import insert

from adapters_store.catalog.database import Database
from adapters_store.catalog.schema import ALIASES, ARTEFACTS, NAMES, VERSIONS
from adapters_store.names import DEFAULT_ALIAS, Reference

VERSIONS_PER_NAME = 4
_PINNED = 2
_CHUNK_NAMES = 2_500
_WHEN = "2026-01-01T00:00:00.000+00:00"


@dataclass(frozen=True, slots=True)
class Population:
    """``num_versions`` versions over ``num_tenants`` tenants, of one backbone and one bank."""

    num_versions: int
    num_tenants: int
    backbone: str
    bank: str

    @property
    def num_names(self) -> int:
        """How many names there are."""
        return self.num_versions // VERSIONS_PER_NAME

    def name(self, index: int) -> Reference:
        """The name of that index in [0, num_names)."""
        return Reference(f"tenant-{index % self.num_tenants:04d}", f"task-{index:07d}")

    def digest(self, index: int, number: int) -> str:
        """The digest of a version."""
        return "sha256:" + hashlib.sha256(f"{index}:{number}".encode()).hexdigest()

    def newest(self, index: int) -> int:
        """The number of a name's newest live version."""
        return VERSIONS_PER_NAME - 1 if _lost_newest(index) else VERSIONS_PER_NAME

    def reference(self, rng: random.Random) -> Reference:
        """A random live version by a random form of reference."""
        index = rng.randrange(self.num_names)
        number = rng.randint(1, self.newest(index))
        form = rng.choice(("bare", "alias", "latest", "version", "digest", "pinned"))
        name = self.name(index)
        values: dict[str, Any] = {}
        if form == "alias" and _is_pinned(index):
            values = {"alias": DEFAULT_ALIAS}
        elif form == "latest":
            values = {"alias": "latest"}
        elif form == "version":
            values = {"version": number}
        elif form == "digest":
            values = {"digest": self.digest(index, number)}
        elif form == "pinned":
            values = {"version": number, "digest": self.digest(index, number)}
        return Reference(name.tenant, name.name, **values)

    def load(self, database: Database) -> None:
        """Insert every row through the schema's tables.

        PostgreSQL counts them as its autovacuum soon would; nobody does that for a SQLite catalog.
        """
        for first in range(0, self.num_names, _CHUNK_NAMES):
            self._load_chunk(database, range(first, min(first + _CHUNK_NAMES, self.num_names)))
        with database.write() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql("ANALYZE")

    def _load_chunk(self, database: Database, indexes: range) -> None:
        adding_names = insert(NAMES).returning(NAMES.c.name, NAMES.c.id)
        with database.write() as connection:
            added = connection.execute(adding_names, [self._name_row(index) for index in indexes])
            ids = {row.name: row.id for row in added}
            numbered = [
                (index, ids[self.name(index).name], number)
                for index in indexes
                for number in range(1, VERSIONS_PER_NAME + 1)
            ]
            artefacts = [self._artefact_row(index, number) for index, _, number in numbered]
            connection.execute(insert(ARTEFACTS), artefacts)
            versions = [self._version_row(*of_version) for of_version in numbered]
            connection.execute(insert(VERSIONS), versions)
            aliases = [
                {"name_id": name_id, "alias": DEFAULT_ALIAS, "number": number}
                for index, name_id, number in numbered
                if number == _PINNED and _is_pinned(index)
            ]
            connection.execute(insert(ALIASES), aliases)

    def _name_row(self, index: int) -> dict[str, Any]:
        name = self.name(index)
        return {
            "tenant": name.tenant,
            "name": name.name,
            "num_versions": VERSIONS_PER_NAME,
            "newest": self.newest(index),
            "newest_kind": "routing",
            "created_at": _WHEN,
        }

    def _artefact_row(self, index: int, number: int) -> dict[str, Any]:
        digest = self.digest(index, number)
        return {
            "digest": digest,
            "kind": "routing",
            "backbone": self.backbone,
            "bank": self.bank,
            "data_digest": digest,
            "data_bytes": 4096,
            "manifest_bytes": 2048,
            "content_digest": digest,
            "created_at": _WHEN,
        }

    def _version_row(self, index: int, name_id: int, number: int) -> dict[str, Any]:
        is_deleted = number > self.newest(index)
        return {
            "name_id": name_id,
            "number": number,
            "digest": self.digest(index, number),
            "actor": "benchmark",
            "created_at": _WHEN,
            "deleted_at": _WHEN if is_deleted else None,
            "deleted_by": "benchmark" if is_deleted else None,
            "delete_reason": "to be skipped" if is_deleted else None,
        }


def _is_pinned(index: int) -> bool:
    return index % 2 == 0


def _lost_newest(index: int) -> bool:
    return index % 10 == 0
