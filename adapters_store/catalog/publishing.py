"""Writing versions: numbers are given out inside the transaction, without gaps per name.

A batch is read, worked out and written as a whole, so that a catalog on another machine costs a few
round trips for hundreds of artefacts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

from sqlalchemy import Connection, bindparam, insert, update

from adapters_store.catalog import aliases as alias_rows
from adapters_store.catalog import lookups
from adapters_store.catalog.journal import Journal
from adapters_store.catalog.lineage import add_parents
from adapters_store.catalog.schema import ARTEFACTS, NAMES, VERSIONS
from adapters_store.errors import IncompatibleError
from adapters_store.ledger.events import Subject
from adapters_store.names import Reference
from adapters_store.records import Version

if TYPE_CHECKING:
    from adapters_store.manifest import Kind, Manifest

_COUNT = (
    update(NAMES)
    .where(NAMES.c.id == bindparam("key"))
    .values(
        num_versions=bindparam("number"), newest=bindparam("number"), newest_kind=bindparam("kind")
    )
)
_RETURN = (
    update(ARTEFACTS).where(ARTEFACTS.c.digest == bindparam("its_digest")).values(collected_at=None)
)


@dataclass(slots=True)
class _Name:
    """A name in a batch; ``newest_kind`` is None while the batch has added no version to it."""

    id: int
    num_versions: int
    newest_kind: Kind | None = None

    def take_number(self, kind: Kind) -> int:
        """The number of the name's next version."""
        self.num_versions += 1
        self.newest_kind = kind
        return self.num_versions

    def as_parameters(self) -> dict[str, object]:
        """The values for ``_COUNT``."""
        return {"key": self.id, "number": self.num_versions, "kind": self.newest_kind}


def publish_many(
    journal: Journal, items: Sequence[tuple[Reference, Manifest]], *, aliases: Sequence[str]
) -> list[Version]:
    """Record artefacts whose blobs are stored as versions of names, in order, and move aliases.

    A live version of a name with the same digest is answered instead of a new one. Raises
    IncompatibleError where a routing's bank has no live version and stands not earlier in the
    batch.
    """
    connection = journal.connection
    manifests = [manifest for _, manifest in items]
    _check_banks(connection, manifests)
    _add_artefacts(journal, manifests)
    names = _open_names(journal, [reference for reference, _ in items])
    keys = [names[reference].id for reference, _ in items]
    live = lookups.live_numbers(connection, zip(keys, (one.digest for one in manifests)))
    pointing = lookups.alias_numbers(connection, product(keys, aliases))
    known_pointers = set(pointing)
    moved: dict[tuple[int, str], int] = {}
    new_versions: list[dict[str, object]] = []
    numbered: list[tuple[int, int]] = []
    for reference, manifest in items:
        name = names[reference]
        number = live.get((name.id, manifest.digest))
        if number is None:
            number = live[name.id, manifest.digest] = name.take_number(manifest.kind)
            new_versions.append(_version_row(journal, name.id, number, manifest))
            _record_version(journal, reference, number, manifest)
        for alias in aliases:
            present = pointing.get((name.id, alias))
            if present != number:
                target = Subject(reference.tenant, reference.name, number, alias, manifest.digest)
                alias_rows.record_move(journal, target, present, reason="published")
                pointing[name.id, alias] = moved[name.id, alias] = number
        numbered.append((name.id, number))
    if new_versions:
        connection.execute(insert(VERSIONS), new_versions)
        changed = [name.as_parameters() for name in names.values() if name.newest_kind is not None]
        connection.execute(_COUNT, changed)
    alias_rows.write(connection, moved, known=known_pointers)
    found = lookups.versions_of(connection, numbered)
    return [found[key] for key in numbered]


def check_bank_is_live(connection: Connection, bank: str) -> None:
    """Raise IncompatibleError where no live version holds that bank."""
    _check_live(connection, [bank])


def _check_banks(connection: Connection, manifests: Sequence[Manifest]) -> None:
    """Raise IncompatibleError for a bank that is neither live nor earlier in the batch."""
    earlier: set[str] = set()
    elsewhere: dict[str, None] = {}
    for manifest in manifests:
        if manifest.kind == "bank":
            earlier.add(manifest.digest)
        elif manifest.bank is not None and manifest.bank not in earlier:
            elsewhere[manifest.bank] = None
    _check_live(connection, list(elsewhere))


def _check_live(connection: Connection, banks: Sequence[str]) -> None:
    live = lookups.live_artefacts(connection, banks)
    for bank in banks:
        if bank not in live:
            raise IncompatibleError(
                f"the routing's bank {bank} is not in the store, or was deleted",
                hint="Publish or restore the bank first.",
            )


def _add_artefacts(journal: Journal, manifests: Sequence[Manifest]) -> None:
    from adapters_store.ledger.lineage import lineage_of

    by_digest = {manifest.digest: manifest for manifest in manifests}
    known = lookups.known_artefacts(journal.connection, by_digest)
    returning = [{"its_digest": digest} for digest, is_collected in known.items() if is_collected]
    if returning:
        journal.connection.execute(_RETURN, returning)
    added = [manifest for digest, manifest in by_digest.items() if digest not in known]
    if not added:
        return
    journal.connection.execute(
        insert(ARTEFACTS), [_artefact_row(journal, manifest) for manifest in added]
    )
    for manifest in added:
        stated = lineage_of(manifest.provenance)
        if stated is not None:
            add_parents(journal.connection, manifest.digest, stated.parents)


def _artefact_row(journal: Journal, manifest: Manifest) -> dict[str, object]:
    return {
        "digest": manifest.digest,
        "kind": manifest.kind,
        "backbone": manifest.backbone,
        "bank": manifest.bank,
        "data_digest": manifest.data.digest,
        "data_bytes": manifest.data.size_bytes,
        "manifest_bytes": len(manifest.canonical),
        "content_digest": manifest.content_digest,
        "created_at": journal.at,
    }


def _open_names(journal: Journal, references: Sequence[Reference]) -> dict[Reference, _Name]:
    """Every name of a batch, made where it is new."""
    known = lookups.known_names(journal.connection, references)
    names = {reference: _Name(*of_name) for reference, of_name in known.items()}
    added = [
        {
            "tenant": reference.tenant,
            "name": reference.name,
            "num_versions": 0,
            "created_at": journal.at,
        }
        for reference in dict.fromkeys(references)
        if reference not in known
    ]
    if added:
        adding = insert(NAMES).returning(NAMES.c.tenant, NAMES.c.name, NAMES.c.id)
        for row in journal.connection.execute(adding, added):
            names[Reference(row.tenant, row.name)] = _Name(row.id, 0)
    return names


def _version_row(
    journal: Journal, name_id: int, number: int, manifest: Manifest
) -> dict[str, object]:
    return {
        "name_id": name_id,
        "number": number,
        "digest": manifest.digest,
        "actor": journal.actor,
        "created_at": journal.at,
    }


def _record_version(
    journal: Journal, reference: Reference, number: int, manifest: Manifest
) -> None:
    journal.record(
        "adapter_version.created",
        Subject(reference.tenant, reference.name, number, digest=manifest.digest),
        kind=manifest.kind,
        bank=manifest.bank,
        data_bytes=manifest.data.size_bytes,
    )
