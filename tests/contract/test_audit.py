"""The audit log: one event per change, chained, append-only, and what a walk along it finds."""

from __future__ import annotations

import hashlib
import json

import pytest
from sqlalchemy import text
from sqlalchemy.event import listen
from sqlalchemy.exc import DBAPIError
from store_kit import bank, low_rank, routing

from adapters_store.canonical import canonical_json
from adapters_store.catalog import open_catalog
from adapters_store.catalog.schema import EVENTS
from adapters_store.errors import ConflictError, PatchbayError, UsageError
from adapters_store.ledger.events import EVENT_TYPES, GENESIS_HASH


@pytest.fixture
def busy(store, t5):
    """Two backbones, a bank with a routing, one task with a moved alias and a deletion."""
    shared = bank(t5)
    store.publish_many([("acme/bank", shared), ("acme/task", routing(t5, shared))], actor="ann")
    store.publish("acme/task", routing(t5, shared, seed=9), actor="bob")
    store.set_alias("acme/task", "prod", 1, actor="bob", reason="rollback")
    store.delete("acme/task:2", actor="ann", reason="worse")
    store.restore("acme/task:2", actor="ann")
    store.remove_alias("acme/bank", "prod", actor="ann", reason="not served")
    return store


def tamper(store, *statements: str) -> None:
    """Change the log behind the store's back, as only who owns the database can."""
    with store._database.write() as connection:
        if connection.dialect.name == "sqlite":
            for verb in ("update", "delete"):
                connection.execute(text(f"DROP TRIGGER IF EXISTS events_no_{verb}"))
        else:
            connection.execute(text("ALTER TABLE events DISABLE TRIGGER ALL"))
        for statement in statements:
            connection.execute(text(statement))


def told(store, **options) -> list[tuple]:
    return [
        (event.type, event.actor, event.subject.reference, event.subject.alias)
        for event in store.audit.events(**options)
    ]


def test_every_change_is_one_event_in_order(busy):
    assert told(busy)[2:] == [
        ("adapter_version.created", "ann", "acme/bank:1", None),
        ("alias.set", "ann", "acme/bank:1", "prod"),
        ("adapter_version.created", "ann", "acme/task:1", None),
        ("alias.set", "ann", "acme/task:1", "prod"),
        ("adapter_version.created", "bob", "acme/task:2", None),
        ("alias.set", "bob", "acme/task:2", "prod"),
        ("alias.set", "bob", "acme/task:1", "prod"),
        ("adapter_version.deleted", "ann", "acme/task:2", None),
        ("adapter_version.restored", "ann", "acme/task:2", None),
        ("alias.removed", "ann", "acme/bank", "prod"),
    ]
    events = busy.audit.events()
    assert [event.type for event in events[:2]] == ["backbone.added"] * 2
    assert [event.sequence for event in events] == list(range(1, 13))
    rollback, deleted = events[8], events[9]
    assert rollback.payload == {"from_version": 2, "reason": "rollback", "evidence": []}
    assert rollback.subject.digest == busy.resolve("acme/task:1").digest
    assert deleted.payload == {"reason": "worse"}
    assert events[4].payload["bank"] == busy.resolve("acme/bank:1").digest
    assert [event.at for event in events] == sorted(event.at for event in events)


def test_a_change_that_fails_or_changes_nothing_leaves_no_event(busy, t5):
    head = busy.audit.head()
    with pytest.raises(ConflictError):
        busy.set_alias("acme/task", "prod", 2, expected_version=2)
    with pytest.raises(ConflictError):
        busy.delete("acme/bank")
    busy.set_alias("acme/task", "prod", 1)
    busy.publish("acme/bank", bank(t5), aliases=())
    busy.add_backbone(t5)
    assert busy.audit.head() == head


def test_the_log_is_paged_and_filtered(busy):
    assert [event.sequence for event in busy.audit.events(after=4, limit=3)] == [5, 6, 7]
    assert {event.subject.tenant for event in busy.audit.events(tenant="acme")} == {"acme"}
    assert busy.audit.events(tenant="nobody") == []
    types = [event.type for event in busy.audit.events(type="alias.*")]
    assert types == ["alias.set"] * 4 + ["alias.removed"]
    assert len(busy.audit.events(type="adapter_version.deleted")) == 1
    with pytest.raises(UsageError, match=r"Did you mean 'alias\.set'"):
        busy.audit.events(type="alias.sat")
    with pytest.raises(UsageError, match="limit"):
        busy.audit.events(limit=0)


def test_anyone_can_compute_the_hashes_from_the_listing(busy):
    previous = GENESIS_HASH
    for event in busy.audit.events():
        document = json.loads(json.dumps(event.as_json()))
        stated = document.pop("hash")
        assert document["previous_hash"] == previous
        previous = hashlib.sha256(canonical_json(document)).hexdigest()
        assert previous == stated
    assert previous == busy.audit.head().hash


def test_an_untouched_log_is_sound(busy):
    early = busy.audit.head()
    busy.set_alias("acme/task", "canary", 2)
    report = busy.audit.verify(expected_head=(early.sequence, early.hash))
    assert report.is_sound
    assert report.num_events == report.head.sequence == early.sequence + 1
    assert report.as_json()["first_break"] is None


BREAKS = {
    "an altered payload": (
        ['UPDATE events SET payload = \'{"reason":""}\' WHERE sequence = 10'],
        (10, "altered"),
    ),
    "a payload that is no JSON": (
        ["UPDATE events SET payload = '{' WHERE sequence = 10"],
        (10, "altered"),
    ),
    "a row before the first": (
        [
            "INSERT INTO events (sequence, at, actor, type, payload, previous_hash, hash) "
            "SELECT -7, at, 'eve', type, '[]', hash, 'x' FROM events WHERE sequence = 12"
        ],
        (-7, "out_of_order"),
    ),
    "an altered actor": (["UPDATE events SET actor = 'eve' WHERE sequence = 3"], (3, "altered")),
    "an altered hash": (
        ["UPDATE events SET hash = 'x' WHERE sequence = 5"],
        (5, "altered"),
    ),
    "a missing row": (["DELETE FROM events WHERE sequence = 6"], (6, "missing")),
    "a missing beginning": (["DELETE FROM events WHERE sequence < 4"], (1, "missing")),
    "swapped rows": (
        [
            "UPDATE events SET sequence = 99 WHERE sequence = 5",
            "UPDATE events SET sequence = 5 WHERE sequence = 6",
            "UPDATE events SET sequence = 6 WHERE sequence = 99",
        ],
        (5, "out_of_order"),
    ),
    "a missing row closed up": (
        [
            "DELETE FROM events WHERE sequence = 6",
            "UPDATE events SET sequence = -sequence WHERE sequence > 6",
            "UPDATE events SET sequence = -sequence - 1 WHERE sequence < 0",
        ],
        (6, "out_of_order"),
    ),
    "a truncated log": (["DELETE FROM events WHERE sequence > 10"], (11, "truncated")),
    "an emptied log": (["DELETE FROM events"], (1, "truncated")),
    "an added row": (
        [
            "INSERT INTO events (sequence, at, actor, type, payload, previous_hash, hash) "
            "SELECT 13, at, 'eve', type, '{}', hash, 'x' FROM events WHERE sequence = 12"
        ],
        (13, "altered"),
    ),
}


@pytest.mark.parametrize("name", list(BREAKS))
def test_a_touched_log_is_found_at_its_first_break(busy, name: str):
    statements, expected = BREAKS[name]
    tamper(busy, *statements)
    found = busy.audit.verify().first_break
    assert found is not None
    assert (found.sequence, found.problem) == expected
    assert "event" in found.message


def test_a_truncated_log_with_a_forged_end_shows_against_a_head_kept_elsewhere(busy):
    kept = busy.audit.head()
    tamper(
        busy,
        "DELETE FROM events WHERE sequence > 8",
        "UPDATE event_head SET sequence = 8, "
        "hash = (SELECT hash FROM events WHERE events.sequence = 8)",
    )
    assert busy.audit.verify().is_sound
    found = busy.audit.verify(expected_head=(kept.sequence, kept.hash)).first_break
    assert found is not None
    assert (found.sequence, found.problem) == (9, "truncated")


def test_a_log_that_was_computed_anew_shows_against_a_head_kept_elsewhere(busy):
    kept = busy.audit.head()
    with busy._database.read() as connection:
        rows = [dict(row) for row in connection.execute(EVENTS.select()).mappings()]
    previous = rows[8]["previous_hash"]
    statements = []
    for event in busy.audit.events(after=8):
        document = event.as_json() | {"previous_hash": previous}
        document.pop("hash")
        if event.sequence == 9:
            document["actor"] = "eve"
        before, previous = previous, hashlib.sha256(canonical_json(document)).hexdigest()
        statements.append(
            f"UPDATE events SET actor = '{document['actor']}', previous_hash = '{before}', "
            f"hash = '{previous}' WHERE sequence = {event.sequence}"
        )
    tamper(busy, *statements, f"UPDATE event_head SET hash = '{previous}'")
    assert busy.audit.verify().is_sound
    found = busy.audit.verify(expected_head=(kept.sequence, kept.hash)).first_break
    assert found is not None
    assert (found.sequence, found.problem) == (kept.sequence, "rewritten")


REFUSED = r"never changed or removed"


@pytest.mark.parametrize("statement", ["UPDATE events SET actor = 'eve'", "DELETE FROM events"])
def test_the_database_itself_refuses_to_change_events(busy, statement: str):
    with (
        pytest.raises((PatchbayError, DBAPIError), match=REFUSED),
        busy._database.write() as connection,
    ):
        connection.execute(text(statement))
    assert busy.audit.verify().is_sound


def test_postgresql_refuses_to_empty_the_log(postgres_url):
    catalog = open_catalog(postgres_url)
    with (
        pytest.raises((PatchbayError, DBAPIError), match=REFUSED),
        catalog.write() as connection,
    ):
        connection.execute(text("TRUNCATE events CASCADE"))
    catalog.close()


@pytest.mark.parametrize(
    ("field", "value"),
    [("actor", "a" * 201), ("reason", "r" * 2001), ("reason", "\ud800"), ("reason", "a\x00b")],
)
def test_notes_that_no_catalog_could_keep_are_refused(busy, field: str, value: str):
    head = busy.audit.head()
    with pytest.raises(UsageError, match=field):
        busy.delete("acme/task:1", **{field: value})
    assert busy.audit.head() == head
    assert not busy.resolve("acme/task:1").is_deleted


def test_a_clock_that_runs_backwards_does_not_turn_the_log_around(busy, monkeypatch):
    from adapters_store.catalog import journal

    before = busy.audit.events()[-1].at
    monkeypatch.setattr(journal, "now", lambda: "2001-01-01T00:00:00.000+00:00")
    busy.set_alias("acme/task", "canary", 2)
    assert busy.audit.events()[-1].at == before
    assert busy.audit.verify().is_sound


def test_a_batch_of_thousands_is_chained_and_costs_little_per_event(store, t5, monkeypatch):
    shared = bank(t5)
    store.publish("acme/bank", shared)
    one = low_rank(t5)
    statements: list[str] = []

    def count(connection, cursor, statement, parameters, context, executemany):
        if "INTO events" in statement:
            statements.append(statement)

    listen(store._database._writer, "before_cursor_execute", count)
    store.publish_many([(f"many/task-{i}", one) for i in range(1500)])
    assert len(statements) < 20
    assert store.audit.verify().num_events == 4 + 3000
    assert store.audit.verify().is_sound


def test_types_are_a_closed_table():
    assert list(EVENT_TYPES) == sorted(set(EVENT_TYPES))
