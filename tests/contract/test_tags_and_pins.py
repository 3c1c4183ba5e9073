"""Tags, pins and leases: small facts beside names, versions and content."""

from __future__ import annotations

import pytest
from store_kit import bank, low_rank, routing

from adapters_store.errors import (
    ConflictError,
    DeletedError,
    InvalidNameError,
    NotFoundError,
    UsageError,
)
from adapters_store.ledger import leases as lease_module
from adapters_store.ledger.tags import MAX_TAGS


@pytest.fixture
def two(store, t5):
    """acme/task with versions 1 and 2, zed/other with version 1; prod moved along."""
    for seed in (1, 2):
        store.publish("acme/task", low_rank(t5, seed=seed))
    store.publish("zed/other", low_rank(t5, seed=3))
    return store


def names(store, **options) -> list[str]:
    return [version.full_name for version in store.list(**options)]


def test_tags_stand_on_names_and_on_versions_apart(two):
    two.tags.set("acme/task", "team", "search")
    two.tags.set("acme/task:1", "status", "reviewed")
    two.tags.set("acme/task@prod", "status", "new")
    assert two.tags.list("acme/task") == {"team": "search"}
    assert two.tags.list("acme/task:1") == {"status": "reviewed"}
    assert two.tags.list("acme/task:2") == {"status": "new"}
    assert two.tags.list("zed/other") == {}
    two.tags.set("acme/task", "team", "ads")
    two.tags.remove("acme/task:1", "status")
    assert two.tags.list("acme/task") == {"team": "ads"}
    assert two.tags.list("acme/task:1") == {}


def test_tags_are_events_and_setting_the_same_is_none(two):
    two.tags.set("acme/task", "team", "search", actor="ann")
    two.tags.set("acme/task", "team", "search", actor="bob")
    two.tags.set("acme/task", "team", "ads", actor="bob")
    two.tags.remove("acme/task", "team", actor="ann")
    told = [
        (event.type, event.actor, event.subject.reference, dict(event.payload))
        for event in two.audit.events(type="tag.*")
    ]
    assert told == [
        ("tag.set", "ann", "acme/task", {"key": "team", "value": "search", "previous": None}),
        ("tag.set", "bob", "acme/task", {"key": "team", "value": "ads", "previous": "search"}),
        ("tag.removed", "ann", "acme/task", {"key": "team", "previous": "ads"}),
    ]


def test_listing_by_tag_finds_names_and_listed_versions(two):
    two.tags.set("acme/task:2", "status", "reviewed")
    two.tags.set("zed/other", "status", "draft")
    assert names(two, tag="status=reviewed") == ["acme/task"]
    assert names(two, tag="status") == ["acme/task", "zed/other"]
    assert names(two, tag="status", tenant="zed") == ["zed/other"]
    assert names(two, tag="status", after="acme/task") == ["zed/other"]
    assert names(two, tag="status=", limit=5) == []
    two.tags.set("acme/task:1", "old", "yes")
    assert names(two, tag="old") == []
    two.delete("acme/task:2")
    assert names(two, tag="old") == ["acme/task"]
    with pytest.raises(InvalidNameError):
        two.list(tag="=x")


def test_pages_by_tag_are_whole_whatever_carries_it(store, t5, monkeypatch):
    from adapters_store.catalog import tagged

    for name in ("_MIN_ROWS", "_MAX_ROWS"):
        monkeypatch.setattr(tagged, name, 2)
    shared = bank(t5)
    store.publish("acme/bank", shared)
    for turn in range(3):
        store.publish_many(
            [(f"acme/t{i}", routing(t5, shared, seed=9 * turn + i)) for i in range(6)]
        )
    for i in range(6):
        for number in (1, 2) if i % 2 else (1, 2, 3):
            store.tags.set(f"acme/t{i}:{number}", "k", "v")
    store.tags.set("acme/t1", "k", "v")
    store.tags.set("acme/t2", "k", "v")
    store.tags.set("acme/t3", "k", "w")
    store.tags.set("acme/bank", "k", "v")
    expected = ["acme/bank", "acme/t0", "acme/t1", "acme/t2", "acme/t4"]
    assert names(store, tag="k=v") == expected
    assert names(store, tag="k") == sorted([*expected, "acme/t3"])
    assert names(store, tag="k=v", kind="routing") == expected[1:]
    for limit in (1, 2, 3):
        found: list[str] = []
        while page := names(store, tag="k=v", limit=limit, after=found[-1] if found else None):
            assert len(page) <= limit
            found += page
        assert found == expected


@pytest.mark.parametrize(
    ("reference", "key", "value", "error"),
    [
        ("acme/task", "Status", "x", InvalidNameError),
        ("acme/task", "", "x", InvalidNameError),
        ("acme/task", "k", "v" * 201, UsageError),
        ("acme/task", "k", "a\x00", UsageError),
        ("acme/none", "k", "v", NotFoundError),
        ("acme/task:9", "k", "v", NotFoundError),
    ],
)
def test_tags_outside_the_rules_are_refused(two, reference, key, value, error):
    with pytest.raises(error):
        two.tags.set(reference, key, value)
    assert two.audit.events(type="tag.*") == []


def test_tags_are_bounded_and_absent_ones_are_not_removed(two):
    for number in range(MAX_TAGS):
        two.tags.set("acme/task", f"k{number}", "v")
    with pytest.raises(ConflictError, match="the limit is 64"):
        two.tags.set("acme/task", "more", "v")
    two.tags.set("acme/task", "k0", "w")
    with pytest.raises(NotFoundError, match="no tag 'absent'"):
        two.tags.remove("acme/task:1", "absent")


def test_a_deleted_version_takes_no_tag_and_keeps_those_it_has(two):
    two.tags.set("acme/task:1", "status", "old")
    two.delete("acme/task:1")
    with pytest.raises(DeletedError):
        two.tags.set("acme/task:1", "status", "new")
    assert two.tags.list("acme/task:1") == {"status": "old"}


def test_pins_are_per_content_and_owner(two):
    digest = two.resolve("acme/task:1").digest
    first = two.pin("acme/task:1", "ann", "legal hold", actor="root")
    assert two.pin("acme/task:1", "ann", "legal hold") == first
    two.pin("acme/task:1", "bob")
    assert [(pin.owner, pin.digest) for pin in two.pins.list()] == [
        ("ann", digest),
        ("bob", digest),
    ]
    assert first.as_json() == {
        "digest": digest,
        "owner": "ann",
        "reason": "legal hold",
        "actor": "root",
        "at": first.at,
    }
    with pytest.raises(ConflictError, match="legal hold"):
        two.pin("acme/task:1", "ann", "another reason")
    two.unpin(digest, "ann")
    two.unpin("acme/task:1", "bob")
    assert two.pins.list() == []
    with pytest.raises(NotFoundError, match="no pin"):
        two.unpin("acme/task:1", "ann")
    types = [event.type for event in two.audit.events(type="pin.*")]
    assert types == ["pin.added", "pin.added", "pin.removed", "pin.removed"]


def test_pins_are_listed_by_owner_and_by_content(two):
    two.pin("acme/task:1", "ann")
    two.pin("acme/task:2", "ann")
    two.pin("acme/task:2", "bob")
    digest = two.resolve("acme/task:2").digest
    assert len(two.pins.list(owner="ann")) == 2
    assert [pin.owner for pin in two.pins.list(digest=digest)] == ["ann", "bob"]
    two.delete("acme/task:1")
    with pytest.raises(DeletedError):
        two.pin("acme/task:1", "bob")


def test_a_lease_holds_exactly_what_was_said_last(store, t5):
    shared = bank(t5)
    digests = [shared.digest, routing(t5, shared).digest]
    store.leases.hold("replica-1", digests, 60)
    store.leases.hold("replica-2", digests[:1], 60)
    assert {(one.owner, one.digest) for one in store.leases.list()} == {
        ("replica-1", digests[0]),
        ("replica-1", digests[1]),
        ("replica-2", digests[0]),
    }
    store.leases.hold("replica-1", digests[1:], 60)
    assert [one.digest for one in store.leases.list("replica-1")] == digests[1:]
    store.leases.release("replica-1")
    store.leases.release("replica-1")
    assert [one.owner for one in store.leases.list()] == ["replica-2"]


def test_a_lease_ends_unless_it_is_renewed(store, monkeypatch):
    digest = "sha256:" + "a" * 64
    store.leases.hold("replica", [digest], 60)
    first = store.leases.list()[0].expires_at
    store.leases.renew("replica", 120)
    assert store.leases.list()[0].expires_at > first
    later = lease_module.shifted(lease_module.now(), 121)
    monkeypatch.setattr(lease_module, "now", lambda: later)
    assert store.leases.list() == []
    with pytest.raises(NotFoundError, match="expired"):
        store.leases.renew("replica", 60)
    store.leases.hold("other", [], 60)
    monkeypatch.undo()
    assert store.leases.list() == []


def test_leases_outside_the_rules_are_refused(store):
    with pytest.raises(InvalidNameError):
        store.leases.hold("replica", ["sha256:short"], 60)
    for ttl_s in (0, -1, float("nan"), 1e9):
        with pytest.raises(UsageError, match="ttl_s"):
            store.leases.hold("replica", [], ttl_s)
    assert store.leases.list() == []


def test_thousands_of_leases_are_held_and_changed(store):
    digests = [f"sha256:{number:064x}" for number in range(2500)]
    store.leases.hold("replica", digests, 60)
    store.leases.hold("replica", digests[1200:], 60)
    assert [one.digest for one in store.leases.list("replica")] == digests[1200:]
    assert store.audit.head().sequence == 2
