"""Damage on disk is found by verification, refused on reading, and repaired by pushing again."""

from __future__ import annotations

from pathlib import Path

import pytest
from store_kit import bank, low_rank, routing

from adapters_store.blobs.local import LocalBlobs
from adapters_store.errors import CorruptStoreError, NotFoundError
from adapters_store.store import Store


@pytest.fixture
def task(store, t5):
    """A sound adapter among others, and its artefact."""
    shared = bank(t5)
    store.publish("acme/bank", shared)
    store.publish("acme/routed", routing(t5, shared))
    artefact = low_rank(t5)
    return store.publish("acme/task", artefact), artefact


def blob_path(store_folder: Path, digest: str) -> Path:
    return LocalBlobs(store_folder / "blobs").path(digest)


def damage(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


def truncate(path: Path) -> None:
    damage(path, path.read_bytes()[:-7])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    damage(path, bytes(data))


def reword(path: Path) -> None:
    damage(path, path.read_bytes().replace(b"Echo.", b"Evil."))


CASES = [
    ("data", truncate, "truncated"),
    ("data", flip, "altered"),
    ("data", Path.unlink, "missing"),
    ("manifest", truncate, "altered"),
    ("manifest", reword, "altered"),
    ("manifest", Path.unlink, "missing"),
]
IDS = [f"{blob} {problem} by {apply.__name__}" for blob, apply, problem in CASES]


def test_a_sound_store_has_no_findings(store, task):
    assert store.verify() == []
    assert store.verify("acme/task") == []
    with pytest.raises(NotFoundError):
        store.verify("acme/none")


@pytest.mark.parametrize(("blob", "apply", "problem"), CASES, ids=IDS)
def test_damage_is_found_refused_and_repaired(store, store_folder, task, blob, apply, problem):
    version, artefact = task
    digest = version.digest if blob == "manifest" else artefact.manifest.data.digest
    apply(blob_path(store_folder, digest))
    [finding] = store.verify()
    assert (finding.reference, finding.blob) == (version.reference, blob)
    assert (finding.digest, finding.problem) == (digest, problem)
    assert digest in finding.message
    assert store.verify("acme/task@prod") == [finding]
    assert store.verify("acme/routed") == []
    with Store.open(store_folder) as fresh, pytest.raises(CorruptStoreError, match="sha256:"):
        fresh.data(version.digest)
    assert store.publish("acme/task", artefact) == version
    assert store.verify() == []


def test_a_missing_bank_shows_on_its_routing(store, store_folder, task):
    bank_digest = store.resolve("acme/bank").digest
    blob_path(store_folder, bank_digest).unlink()
    [finding] = store.verify("acme/routed")
    assert (finding.blob, finding.problem) == ("bank", "bank_missing")
    assert finding.digest == bank_digest


def test_deleted_versions_are_verified_too(store, store_folder, task):
    version, artefact = task
    store.delete("acme/task")
    flip(blob_path(store_folder, artefact.manifest.data.digest))
    assert [finding.problem for finding in store.verify()] == ["altered"]
    assert [finding.reference for finding in store.verify("acme/task")] == [version.reference]


def test_a_catalog_that_is_no_database_is_reported(tmp_path):
    (tmp_path / "catalog.sqlite").write_bytes(b"not a database, but long enough to be read" * 100)
    with pytest.raises(CorruptStoreError, match="damaged"):
        Store.open(tmp_path)
