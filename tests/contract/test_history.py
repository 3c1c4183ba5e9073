"""What a reference meant at a time: aliases, the default, and the newest version then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from store_kit import low_rank

from adapters_store.catalog import journal
from adapters_store.errors import InvalidNameError, NotFoundError, UsageError


class Clock:
    """The catalog's clock, moved by the test; ``at(n)`` is its n-th minute."""

    def __init__(self) -> None:
        self.minute = 0

    def at(self, minute: float) -> datetime:
        return datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(minutes=minute)

    def now(self) -> str:
        return self.at(self.minute).isoformat(timespec="milliseconds")


@pytest.fixture
def clock(monkeypatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(journal, "now", made.now)
    return made


@pytest.fixture
def past(clock: Clock, store_place, open_store_at, t5):
    """acme/task: versions at minutes 1, 2, 3; prod set, moved, removed; 3 deleted and restored."""
    store = open_store_at(store_place)
    store.add_backbone(t5)

    def change(minute: int, action, *arguments, **options):
        clock.minute = minute
        action(*arguments, **options)

    for minute in (1, 2, 3):
        change(minute, store.publish, "acme/task", low_rank(t5, seed=minute), aliases=())
    change(4, store.set_alias, "acme/task", "prod", 1)
    change(5, store.set_alias, "acme/task", "prod", 2)
    change(5, store.set_alias, "acme/task", "canary", 3)
    change(6, store.delete, "acme/task:3")
    change(7, store.remove_alias, "acme/task", "prod")
    change(8, store.restore, "acme/task:3")
    change(9, store.delete, "acme/task:1")
    return store


@pytest.mark.parametrize(
    ("reference", "minute", "expected"),
    [
        ("acme/task", 0.5, None),
        ("acme/task", 1, 1),
        ("acme/task", 2.5, 2),
        ("acme/task", 3, 3),
        ("acme/task", 4, 1),
        ("acme/task", 4.999, 1),
        ("acme/task", 5, 2),
        ("acme/task", 7.5, 2),
        ("acme/task", 8.5, 3),
        ("acme/task@prod", 3.5, None),
        ("acme/task@prod", 4.5, 1),
        ("acme/task@prod", 6.5, 2),
        ("acme/task@prod", 7.5, None),
        ("acme/task@canary", 5.5, 3),
        ("acme/task@canary", 6.5, None),
        ("acme/task@canary", 8.5, 3),
        ("acme/task@stable", 9, None),
        ("acme/task@latest", 2.5, 2),
        ("acme/task@latest", 6.5, 2),
        ("acme/task@latest", 9.5, 3),
        ("acme/task:3", 2.5, None),
        ("acme/task:3", 3.5, 3),
        ("acme/task:3", 6.5, None),
        ("acme/task:1", 8.5, 1),
        ("acme/task:1", 9.5, None),
    ],
)
def test_a_reference_means_what_it_meant_then(past, clock, reference, minute, expected):
    at = clock.at(minute)
    if expected is None:
        with pytest.raises(NotFoundError, match="meant nothing at"):
            past.resolve(reference, at=at)
    else:
        assert past.resolve(reference, at=at).number == expected
        assert past.resolve(reference, at=at.isoformat()).number == expected


def test_a_version_of_the_past_is_told_as_it_is_now(past, clock):
    found = past.resolve("acme/task@prod", at=clock.at(4.5))
    assert found.number == 1
    assert found.is_deleted
    assert found.manifest.digest == found.digest


def test_a_digest_of_the_past_resolves(past, clock):
    digest = past.resolve("acme/task:2").digest
    assert past.resolve(f"acme/task@{digest}", at=clock.at(3)).number == 2
    with pytest.raises(NotFoundError, match="was created at"):
        past.resolve(f"acme/task@{digest}", at=clock.at(1))


def test_a_digest_that_was_published_again_means_the_version_that_held_it_then(past, clock, t5):
    digest = past.versions("acme/task")[-1].digest
    clock.minute = 10
    assert past.publish("acme/task", low_rank(t5, seed=1), aliases=()).number == 4
    clock.minute = 11
    past.restore("acme/task:1")
    reference = f"acme/task@{digest}"
    assert past.resolve(reference, at=clock.at(8.5)).number == 1
    assert past.resolve(reference, at=clock.at(10.5)).number == 4
    with pytest.raises(NotFoundError, match="meant nothing at"):
        past.resolve(reference, at=clock.at(9.5))


def test_times_are_text_in_utc_or_carry_a_zone(past):
    assert past.resolve("acme/task", at="2026-03-01T12:04:30").number == 1
    assert past.resolve("acme/task", at="2026-03-01T12:04:30Z").number == 1
    assert past.resolve("acme/task", at="2026-03-01T14:04:30+02:00").number == 1
    assert past.resolve("acme/task", at="2026-03-02").number == 3
    for wrong in ("yesterday", "2026-13-01", datetime(2026, 3, 1, 12, 4)):
        with pytest.raises(UsageError, match="time"):
            past.resolve("acme/task", at=wrong)


def test_unknown_names_and_bad_references_are_refused_as_ever(past, clock):
    with pytest.raises(NotFoundError, match="Did you mean acme/task"):
        past.resolve("acme/tusk", at=clock.at(5))
    with pytest.raises(InvalidNameError):
        past.resolve("acme", at=clock.at(5))
