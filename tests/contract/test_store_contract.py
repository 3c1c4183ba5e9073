"""Names, versions, aliases, deletion: what a store promises over every catalog."""

from __future__ import annotations

import pytest
from services.blobs import every_durable_blobs
from store_kit import bank, low_rank, routing, save_t5

from adapters_store.backbone import Backbone
from adapters_store.errors import (
    ConflictError,
    DeletedError,
    IncompatibleError,
    InvalidNameError,
    NotFoundError,
    UsageError,
)

pytestmark = every_durable_blobs


@pytest.fixture
def three(store, t5):
    """acme/task with versions 1, 2, 3; prod points at 1."""
    for seed in (1, 2, 3):
        store.publish("acme/task", low_rank(t5, seed=seed), aliases=())
    store.set_alias("acme/task", "prod", 1, reason="first release")
    return store


def test_each_form_of_reference_resolves(three):
    digest = three.resolve("acme/task:2").digest
    assert three.resolve("acme/task").number == 1
    assert three.resolve("acme/task@prod").number == 1
    assert three.resolve("acme/task@latest").number == 3
    assert three.resolve(f"acme/task@{digest}").number == 2
    assert three.resolve(f"acme/task:2@{digest}").number == 2


def test_a_bare_name_without_prod_is_its_newest_version(three):
    three.remove_alias("acme/task", "prod", expected_version=1)
    assert three.resolve("acme/task").number == 3
    with pytest.raises(NotFoundError, match="aliases: none"):
        three.resolve("acme/task@prod")


def test_a_pinned_reference_whose_digest_moved_is_not_found(three):
    other = three.resolve("acme/task:3").digest
    with pytest.raises(NotFoundError, match="asked for"):
        three.resolve(f"acme/task:2@{other}")


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("acme/tusk", "Did you mean acme/task"),
        ("nobody/task", "does not exist"),
        ("acme/task:9", "versions 1 to 3"),
        ("acme/task@canary", "aliases: prod"),
    ],
)
def test_unknown_references_say_what_exists(three, reference: str, words: str):
    with pytest.raises(NotFoundError, match=words):
        three.resolve(reference)


def test_alias_moves_by_compare_and_set(three):
    three.set_alias("acme/task", "prod", 2, expected_version=1, actor="ann", reason="better")
    with pytest.raises(ConflictError, match="points at version 2; expected version 1"):
        three.set_alias("acme/task", "prod", 3, expected_version=1)
    with pytest.raises(ConflictError, match="expected that it is not set"):
        three.set_alias("acme/task", "prod", 3, expected_version=0)
    with pytest.raises(ConflictError, match="is not set; expected version 4"):
        three.set_alias("acme/task", "canary", 3, expected_version=4)
    assert three.set_alias("acme/task", "canary", 3, expected_version=0).aliases == ("canary",)
    assert three.aliases("acme/task") == {"canary": 3, "prod": 2}


def test_alias_history_tells_every_move_and_nothing_else(three):
    three.set_alias("acme/task", "prod", 2, actor="ann", reason="better")
    three.set_alias("acme/task", "prod", 2, actor="ann", reason="again")
    three.remove_alias("acme/task", "prod", actor="bob", reason="retired")
    moves = [
        (event.alias, event.from_version, event.to_version, event.actor, event.reason)
        for event in three.alias_history("acme/task")
    ]
    assert moves == [
        ("prod", None, 1, "local", "first release"),
        ("prod", 1, 2, "ann", "better"),
        ("prod", 2, None, "bob", "retired"),
    ]


def test_alias_to_nothing_is_refused(three):
    with pytest.raises(NotFoundError):
        three.set_alias("acme/task", "prod", 9)
    three.delete("acme/task:3")
    with pytest.raises(DeletedError):
        three.set_alias("acme/task", "prod", 3)
    with pytest.raises(InvalidNameError):
        three.set_alias("acme/task", "latest", 1)
    with pytest.raises(NotFoundError, match="no alias 'canary'"):
        three.remove_alias("acme/task", "canary")


def test_a_deleted_version_answers_gone_until_restored(three):
    before = three.resolve("acme/task:1")
    assert [v.number for v in three.delete("acme/task:1", actor="ann", reason="leak")] == [1]
    for reference in ("acme/task", "acme/task@prod", "acme/task:1"):
        with pytest.raises(DeletedError, match="by ann"):
            three.resolve(reference)
    with pytest.raises(DeletedError):
        three.delete("acme/task:1")
    gone = three.versions("acme/task")[-1]
    assert gone.is_deleted
    assert (gone.deleted_by, gone.delete_reason) == ("ann", "leak")
    assert three.resolve("acme/task@latest").number == 3
    three.restore("acme/task:1")
    assert three.resolve("acme/task") == before
    with pytest.raises(ConflictError, match="nothing to restore"):
        three.restore("acme/task:1")


def test_a_deleted_name_leaves_listings_and_keeps_its_numbers(three, t5):
    three.delete("acme/task", reason="tenant left")
    assert three.list() == []
    for reference in ("acme/task", "acme/task:2", "acme/task@latest"):
        with pytest.raises(DeletedError):
            three.resolve(reference)
    assert three.publish("acme/task", low_rank(t5, seed=1)).number == 4
    assert three.resolve("acme/task").number == 4
    assert [v.number for v in three.restore("acme/task")] == [3, 2, 1]
    assert [v.number for v in three.versions("acme/task")] == [4, 3, 2, 1]


def test_a_bank_in_use_cannot_be_deleted(store, t5):
    shared = bank(t5)
    store.publish("acme/bank", shared)
    store.publish("zed/task", routing(t5, shared))
    for reference in ("acme/bank", "acme/bank:1"):
        with pytest.raises(ConflictError, match="zed/task:1"):
            store.delete(reference)
    assert store.resolve("acme/bank").number == 1
    store.delete("zed/task")
    store.delete("acme/bank")
    with pytest.raises(ConflictError, match="cannot come back"):
        store.restore("zed/task")
    with pytest.raises(IncompatibleError, match="not in the store, or was deleted"):
        store.publish("zed/other", routing(t5, shared, seed=7))
    store.restore("acme/bank")
    store.restore("zed/task")
    assert store.resolve("zed/task").bank == shared.digest


def test_a_bank_published_twice_may_lose_one_name(store, t5):
    shared = bank(t5)
    store.publish("acme/bank", shared)
    store.publish("acme/copy", shared)
    store.publish("acme/task", routing(t5, shared))
    store.delete("acme/bank")
    with pytest.raises(ConflictError):
        store.delete("acme/copy")


def test_a_batch_may_hold_a_bank_and_its_routings(store, t5):
    shared = bank(t5)
    items = [("acme/bank", shared)]
    items += [(f"acme/task-{i}", routing(t5, shared, seed=i)) for i in range(5)]
    found = store.publish_many(items)
    assert [version.number for version in found] == [1] * 6
    assert store.publish_many([]) == []


def test_a_batch_may_name_one_name_and_one_artefact_again_and_again(store, t5):
    first, second = low_rank(t5, seed=1), low_rank(t5, seed=2)
    store.publish("acme/task", first, aliases=("canary",))
    store.delete("acme/task:1")
    items = [("acme/task", first), ("acme/other", first), ("acme/task", second)]
    items += [("acme/task", first), ("acme/new", second)]
    found = store.publish_many(items, aliases=("prod", "canary"))
    named = [f"{version.name}:{version.number}" for version in found]
    assert named == ["task:2", "other:1", "task:3", "task:2", "new:1"]
    assert found[0] == found[3]
    assert found[0].aliases == ("canary", "prod")
    assert found[2].aliases == ()
    assert store.aliases("acme/task") == {"canary": 2, "prod": 2}
    assert [version.number for version in store.list()] == [1, 1, 3]
    moves = [(m.alias, m.from_version, m.to_version) for m in store.alias_history("acme/task")]
    assert [move for move in moves if move[0] == "prod"] == [
        ("prod", None, 2),
        ("prod", 2, 3),
        ("prod", 3, 2),
    ]
    assert [move[1:] for move in moves if move[0] == "canary"] == [
        (None, 1),
        (1, 2),
        (2, 3),
        (3, 2),
    ]
    assert store.audit.verify().is_sound


def test_a_batch_of_hundreds_keeps_its_order(store, t5):
    shared = bank(t5)
    store.publish("acme/bank", shared)
    artefacts = [routing(t5, shared, seed=seed) for seed in range(30)]
    items = [(f"acme/task-{i % 250:03d}", artefacts[i % 7 + i // 250 * 10]) for i in range(500)]
    found = store.publish_many(items)
    assert [version.full_name for version in found] == [name for name, _ in items]
    assert [version.digest for version in found] == [artefact.digest for _, artefact in items]
    assert [version.number for version in found] == [1] * 250 + [2] * 250
    assert store.publish_many(items) == [
        store.resolve(f"{version.full_name}:{version.number}") for version in found
    ]


def test_listing_is_by_name_in_pages(store, t5, bert):
    shared = bank(t5)
    store.publish("b/bank", shared)
    for name in ("b/one", "a/two", "b/two", "c/one"):
        store.publish(name, routing(t5, shared))
    store.publish("a/label", low_rank(bert))

    def names(**options):
        return [version.full_name for version in store.list(**options)]

    assert names() == ["a/label", "a/two", "b/bank", "b/one", "b/two", "c/one"]
    assert names(limit=2) == ["a/label", "a/two"]
    assert names(limit=2, after="a/two") == ["b/bank", "b/one"]
    assert names(tenant="b") == ["b/bank", "b/one", "b/two"]
    assert names(kind="routing", tenant="b") == ["b/one", "b/two"]
    assert names(kind="adapter") == ["a/label"]
    with pytest.raises(UsageError):
        store.list(limit=0)


def test_listings_follow_the_newest_live_version_and_its_kind(store, t5):
    shared = bank(t5)
    store.publish("b/bank", shared)
    store.publish("a/task", low_rank(t5))
    store.publish("a/task", routing(t5, shared))

    def listed(kind=None):
        return [version.reference.partition("@")[0] for version in store.list("a", kind)]

    assert listed() == listed("routing") == ["a/task:2"]
    assert listed("adapter") == []
    store.delete("a/task:2")
    assert listed() == listed("adapter") == ["a/task:1"]
    assert listed("routing") == []
    store.delete("a/task:1")
    assert listed() == listed("adapter") == listed("routing") == []
    store.restore("a/task:1")
    assert listed() == listed("adapter") == ["a/task:1"]
    store.restore("a/task:2")
    assert listed() == listed("routing") == ["a/task:2"]
    store.publish("a/task", low_rank(t5, seed=9))
    assert listed() == listed("adapter") == ["a/task:3"]


def test_versions_come_in_pages_from_the_newest(store, t5):
    for seed in range(5):
        store.publish("a/task", low_rank(t5, seed=seed))

    def numbers(**options):
        return [version.number for version in store.versions("a/task", **options)]

    assert numbers() == [5, 4, 3, 2, 1]
    assert numbers(limit=2) == [5, 4]
    assert numbers(limit=2, before=4) == [3, 2]
    assert numbers(limit=2, before=2) == [1]
    assert numbers(before=1) == []
    with pytest.raises(UsageError):
        store.versions("a/task", limit=0)
    with pytest.raises(NotFoundError):
        store.versions("a/tusk", limit=2, before=1)


def test_generation_grows_with_every_change_and_no_read(three):
    start = three.generation()
    three.resolve("acme/task")
    three.list()
    assert three.generation() == start
    three.set_alias("acme/task", "prod", 2)
    three.delete("acme/task:3")
    assert three.generation() == start + 2


def test_a_reopened_store_knows_everything(three, store_place, open_store_at):
    again = open_store_at(store_place)
    assert again.resolve("acme/task") == three.resolve("acme/task")
    assert again.generation() == three.generation()
    assert again.list() == three.list()


def test_backbone_names_and_fingerprints_belong_together(store, t5, tmp_path):
    other = Backbone.from_folder(save_t5(tmp_path / "other", seed=4))
    assert store.add_backbone(t5) == store.add_backbone(t5)
    with pytest.raises(ConflictError, match="stands for"):
        store.add_backbone(other, name=t5.name)
    with pytest.raises(ConflictError, match="already registered"):
        store.add_backbone(t5, name="another-name")
    assert store.add_backbone(other, name="second").name == "second"
    assert [record.name for record in store.backbones()] == ["second", "tiny-bert", "tiny-t5"]


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.set_alias("acme/task", "prod", 2**70),
        lambda store: store.set_alias("acme/task", "prod", 1, evidence=[2**70]),
        lambda store: store.versions("acme/task", before=2**70),
        lambda store: store.list(limit=2**70),
        lambda store: store.audit.events(after=2**70),
        lambda store: store.list(tag="status=\udc80"),
        lambda store: store.unpin("acme/task", "\udc80"),
        lambda store: store.webhooks.remove(2**70),
    ],
)
def test_values_that_no_catalog_can_hold_are_refused(store, t5, call):
    store.publish("acme/task", low_rank(t5))
    with pytest.raises(UsageError, match="nothing that a catalog can hold"):
        call(store)
    assert store.resolve("acme/task").number == 1
