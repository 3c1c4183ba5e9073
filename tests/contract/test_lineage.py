"""Lineage and evaluations: where a version comes from, and what was measured of it."""

from __future__ import annotations

import pytest
from store_kit import bank, low_rank, routing

from adapters_store.artefact import Artefact
from adapters_store.canonical import canonical_json
from adapters_store.errors import DeletedError, InvalidArtefactError, NotFoundError, UsageError
from adapters_store.ledger.evaluations import Evaluation
from adapters_store.manifest import make_manifest, parse_manifest

ELSEWHERE = "sha256:" + "e" * 64


def child(backbone, seed: int, *parents: str, **stated) -> Artefact:
    """An adapter that states these parents."""
    lineage = {"parents": list(parents), "seed": seed} | stated
    return low_rank(backbone, seed=seed, provenance={"lineage": lineage})


@pytest.fixture
def family(store, t5):
    """A bank with two routings; acme/start -> acme/tuned -> acme/again."""
    shared = bank(t5)
    start = low_rank(t5, seed=1)
    tuned = child(t5, 2, start.digest, data_digest=ELSEWHERE, versions={"torch": "2.13.0"})
    again = child(t5, 3, tuned.digest, ELSEWHERE)
    store.publish_many(
        [
            ("acme/bank", shared),
            ("acme/route", routing(t5, shared)),
            ("zed/route", routing(t5, shared, seed=8)),
            ("acme/start", start),
            ("acme/tuned", tuned),
            ("acme/again", again),
        ]
    )
    return store


def related(relatives) -> list[tuple]:
    return sorted((one.relation, one.depth, one.kind or "?", one.references) for one in relatives)


def test_a_routing_has_its_bank_above_and_a_bank_its_routings_below(family):
    route = family.lineage("acme/route")
    assert route.bank == family.resolve("acme/bank").digest
    assert related(route.ancestors) == [("bank", 1, "bank", ("acme/bank:1",))]
    assert route.children == ()
    below = family.lineage("acme/bank").children
    assert related(below) == [
        ("routing", 1, "routing", ("acme/route:1",)),
        ("routing", 1, "routing", ("zed/route:1",)),
    ]


def test_parents_are_followed_to_the_beginning(family):
    again = family.lineage("acme/again")
    assert related(again.ancestors) == [
        ("parent", 1, "?", ()),
        ("parent", 1, "adapter", ("acme/tuned:1",)),
        ("parent", 2, "adapter", ("acme/start:1",)),
    ]
    assert not again.is_cut
    assert related(family.lineage("acme/start").children) == [
        ("child", 1, "adapter", ("acme/tuned:1",))
    ]
    assert family.lineage("acme/start").stated is None
    stated = family.lineage("acme/tuned").stated
    assert stated["data_digest"] == ELSEWHERE
    assert family.lineage("acme/tuned").as_json()["lineage"]["versions"] == {"torch": "2.13.0"}


def test_one_tenant_does_not_see_anothers_versions(family):
    below = family.lineage("acme/bank", tenant="zed").children
    assert related(below) == [("routing", 1, "routing", ("zed/route:1",))]
    assert related(family.lineage("zed/route", tenant="zed").ancestors) == [("bank", 1, "bank", ())]


def test_many_children_are_cut_and_said_to_be(store, t5, monkeypatch):
    from adapters_store.catalog import lineage as lineage_rows

    monkeypatch.setattr(lineage_rows, "MAX_RELATIVES", 3)
    shared = bank(t5)
    store.publish("acme/bank", shared)
    store.publish_many([(f"acme/r{i}", routing(t5, shared, seed=i)) for i in range(5)])
    found = store.lineage("acme/bank")
    assert len(found.children) == 3
    assert found.is_cut
    chain = low_rank(t5, seed=50)
    for seed in range(51, 56):
        chain = child(t5, seed, chain.digest)
        store.publish("acme/chain", chain)
    long = store.lineage("acme/chain")
    assert [one.depth for one in long.ancestors] == [1, 2, 3]
    assert long.is_cut


@pytest.mark.parametrize(
    ("lineage", "words"),
    [
        ("free text", "lineage"),
        ({"parent": []}, "parent"),
        ({"parents": ["sha256:short"]}, r"parents\.0"),
        ({"parents": [ELSEWHERE, ELSEWHERE]}, "named twice"),
        ({"parents": [f"sha256:{i:064x}" for i in range(65)]}, "parents"),
        ({"seed": "1"}, "seed"),
        ({"seed": 1.5}, "seed"),
        ({"data_digest": "md5:x"}, "data_digest"),
        ({"versions": {"torch": 2}}, "versions"),
        ({"code": ""}, "code"),
    ],
)
def test_a_lineage_outside_its_form_is_refused_at_publication(store, t5, lineage, words):
    with pytest.raises(InvalidArtefactError, match=words):
        low_rank(t5, provenance={"lineage": lineage})
    sound = low_rank(t5)
    document = sound.manifest.model_dump() | {"provenance": {"lineage": lineage}}
    broken = Artefact(make_manifest(document), sound.data)
    with pytest.raises(InvalidArtefactError, match=words):
        store.publish("acme/task", broken)
    assert store.list() == []


def test_what_older_releases_stored_stays_readable(t5):
    document = low_rank(t5).manifest.model_dump(mode="json")
    document["provenance"] = {"lineage": "from the shared run", "parents": [ELSEWHERE]}
    assert parse_manifest(canonical_json(document)).provenance["lineage"] == "from the shared run"


def test_evaluations_are_added_and_listed_in_order(family):
    first = Evaluation("exact_match", 0.75, "test", ELSEWHERE, 200, 7, "few-shot")
    added = family.add_evaluation("acme/tuned", first, actor="ann")
    family.add_evaluation("acme/tuned:1", Evaluation("latency_ms", 12))
    family.add_evaluation("acme/start", Evaluation("exact_match", 0.5))
    records = family.evaluations("acme/tuned")
    assert [record.evaluation.metric for record in records] == ["exact_match", "latency_ms"]
    assert records[0] == added
    assert records[0].evaluation == first
    assert records[1].evaluation.value == 12.0
    assert added.reference == family.resolve("acme/tuned").reference
    assert added.as_json() == {
        "id": added.id,
        "reference": added.reference,
        "actor": "ann",
        "at": added.at,
        "metric": "exact_match",
        "value": 0.75,
        "split": "test",
        "data_digest": ELSEWHERE,
        "num_examples": 200,
        "seed": 7,
        "notes": "few-shot",
    }
    event = family.audit.events(type="evaluation.added")[0]
    assert event.payload["value"] == 0.75
    assert event.subject.reference == "acme/tuned:1"
    family.delete("acme/tuned")
    with pytest.raises(DeletedError):
        family.add_evaluation("acme/tuned:1", first)
    assert len(family.evaluations("acme/tuned:1")) == 2


@pytest.mark.parametrize(
    "wrong",
    [
        {"metric": ""},
        {"metric": "m" * 101},
        {"value": float("nan")},
        {"value": float("inf")},
        {"value": True},
        {"value": "0.5"},
        {"split": " "},
        {"data_digest": "sha256:x"},
        {"num_examples": -1},
        {"num_examples": 1.5},
        {"seed": 2**63},
        {"seed": True},
        {"notes": "\x00"},
    ],
)
def test_evaluations_outside_their_form_are_refused(wrong):
    with pytest.raises(UsageError):
        Evaluation(**({"metric": "accuracy", "value": 0.5} | wrong))


def test_an_alias_move_cites_evaluations_of_its_own_name(family):
    mine = family.add_evaluation("acme/tuned", Evaluation("accuracy", 0.9))
    other = family.add_evaluation("acme/start", Evaluation("accuracy", 0.1))
    family.set_alias("acme/tuned", "canary", 1, evidence=[mine.id])
    moved = family.alias_history("acme/tuned")[-1]
    assert moved.evidence == (mine.id,)
    assert moved.as_json()["evidence"] == [mine.id]
    with pytest.raises(NotFoundError, match=f"no evaluation {other.id}"):
        family.set_alias("acme/tuned", "stable", 1, evidence=[mine.id, other.id])
    with pytest.raises(UsageError, match="the limit is 64"):
        family.set_alias("acme/tuned", "stable", 1, evidence=list(range(65)))
    assert "stable" not in family.aliases("acme/tuned")
