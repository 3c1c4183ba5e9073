"""A catalog of the first release gets a chain of events that tells its past."""

from __future__ import annotations

import pytest
from sqlalchemy import insert, inspect
from sqlalchemy.exc import DBAPIError

from adapters_store.catalog import aliases, events, history, open_catalog
from adapters_store.catalog import migrations as catalog_migrations
from adapters_store.catalog.migrations import v0001_initial as old
from adapters_store.errors import PatchbayError
from adapters_store.ledger.audit import Audit
from adapters_store.names import parse_reference

DIGESTS = ["sha256:" + letter * 64 for letter in "abc"]


def minute(number: int) -> str:
    return f"2026-03-01T12:{number:02d}:00.000+00:00"


@pytest.fixture
def old_catalog(catalog_url, monkeypatch) -> str:
    """Versions 1 to 3 of acme/task; prod on 1, moved to 2, removed; version 3 deleted."""
    with monkeypatch.context() as first_release:
        for name in list(catalog_migrations.MIGRATIONS)[1:]:
            first_release.delitem(catalog_migrations.MIGRATIONS, name)
        catalog = open_catalog(catalog_url)
        with catalog.write() as connection:
            connection.execute(
                insert(old.BACKBONES).values(
                    fingerprint="sha256:f",
                    name="tiny",
                    family="t5",
                    config="{}",
                    created_at=minute(0),
                )
            )
            for digest in DIGESTS:
                connection.execute(
                    insert(old.ARTEFACTS).values(
                        digest=digest,
                        kind="adapter",
                        backbone="sha256:f",
                        data_digest=digest,
                        data_bytes=7,
                        manifest_bytes=9,
                        content_digest=digest,
                        created_at=minute(1),
                    )
                )
            connection.execute(
                insert(old.NAMES).values(
                    id=1, tenant="acme", name="task", num_versions=3, created_at=minute(1)
                )
            )
            for number, digest in enumerate(DIGESTS, start=1):
                connection.execute(
                    insert(old.VERSIONS).values(
                        name_id=1,
                        number=number,
                        digest=digest,
                        actor="ann",
                        created_at=minute(number),
                        deleted_at=minute(8) if number == 3 else None,
                        deleted_by="bob" if number == 3 else None,
                        delete_reason="bad" if number == 3 else None,
                    )
                )
            for at, before, after in ((1, None, 1), (4, 1, 2), (6, 2, None)):
                connection.execute(
                    insert(old.ALIAS_EVENTS).values(
                        name_id=1,
                        alias="prod",
                        from_number=before,
                        to_number=after,
                        actor="ann",
                        reason=f"move {at}",
                        at=minute(at),
                    )
                )
        catalog.close()
    return catalog_url


def test_the_past_is_told_in_order_and_chained(old_catalog):
    catalog = open_catalog(old_catalog)
    told = [
        (event.type, event.at, event.actor, event.subject.version)
        for event in Audit(catalog).events()
    ]
    assert told == [
        ("backbone.added", minute(0), "local", None),
        ("adapter_version.created", minute(1), "ann", 1),
        ("alias.set", minute(1), "ann", 1),
        ("adapter_version.created", minute(2), "ann", 2),
        ("adapter_version.created", minute(3), "ann", 3),
        ("alias.set", minute(4), "ann", 2),
        ("alias.removed", minute(6), "ann", None),
        ("adapter_version.deleted", minute(8), "bob", 3),
    ]
    assert Audit(catalog).verify().is_sound
    with catalog.read() as connection:
        assert not inspect(connection).has_table("alias_events")
    catalog.close()


def test_alias_history_and_the_past_are_as_before(old_catalog):
    catalog = open_catalog(old_catalog)
    task = parse_reference("acme/task")
    with catalog.read() as connection:
        moves = [
            (move.alias, move.from_version, move.to_version, move.reason)
            for move in aliases.history(connection, task)
        ]
        found = [history.resolve_at(connection, task, minute(at)).number for at in (2, 5, 7)]
    assert moves == [
        ("prod", None, 1, "move 1"),
        ("prod", 1, 2, "move 4"),
        ("prod", 2, None, "move 6"),
    ]
    assert found == [1, 2, 3]
    catalog.close()


def test_the_imported_past_is_as_unchangeable_as_what_follows(old_catalog):
    catalog = open_catalog(old_catalog)
    with (
        pytest.raises((PatchbayError, DBAPIError), match="never changed"),
        catalog.write() as connection,
    ):
        connection.exec_driver_sql("UPDATE events SET actor = 'eve'")
    with catalog.read() as connection:
        assert events.find(connection, 2) is not None
        assert events.find(connection, 99) is None
    catalog.close()
