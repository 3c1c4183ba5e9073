"""Artefacts keep every bit from build to tensors, for each kind and family."""

from __future__ import annotations

import pytest
import torch
from store_kit import bank, low_rank, routing

from adapters_store.artefact import load_tensors, read_artefact, write_artefact


@pytest.fixture(params=["t5", "bert"])
def backbone(request):
    return request.getfixturevalue(request.param)


def _roundtrip(store, name, artefact, folder):
    write_artefact(artefact, folder)
    read = read_artefact(folder)
    assert read == artefact
    version = store.publish(name, read)
    assert version.digest == artefact.digest == version.manifest.digest
    built, stored = load_tensors(artefact), store.tensors(version.digest)
    assert sorted(built) == sorted(stored)
    for key, tensor in built.items():
        assert stored[key].dtype == tensor.dtype
        assert torch.equal(stored[key], tensor)
    return version


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_adapter_roundtrips_exactly(store, backbone, tmp_path, dtype):
    version = _roundtrip(store, "acme/adapter", low_rank(backbone, dtype=dtype), tmp_path / "a")
    assert version.reference == f"acme/adapter:1@{version.digest}"
    assert store.resolve(version.reference) == version
    assert version.aliases == ("prod",)


def test_bank_and_routing_roundtrip_exactly(store, backbone, tmp_path):
    shared = bank(backbone)
    assert _roundtrip(store, "acme/bank", shared, tmp_path / "bank").kind == "bank"
    version = _roundtrip(store, "acme/task", routing(backbone, shared), tmp_path / "routing")
    assert version.kind == "routing"
    assert version.bank == shared.digest


def test_the_same_tensors_give_the_same_bytes_and_digest(t5):
    assert low_rank(t5) == low_rank(t5)
    assert low_rank(t5).digest == low_rank(t5).digest


def test_content_digest_is_independent_of_provenance(t5):
    plain, told = low_rank(t5), low_rank(t5, provenance={"note": "again", "scores": [0.5, None]})
    assert plain.manifest.content_digest == told.manifest.content_digest
    assert plain.digest != told.digest
    other = low_rank(t5, seed=9)
    assert other.manifest.content_digest != plain.manifest.content_digest


def test_publishing_again_answers_the_same_version(store, t5):
    first = store.publish("acme/task", low_rank(t5))
    second = store.publish("acme/task", low_rank(t5, seed=5))
    again = store.publish("acme/task", low_rank(t5))
    assert (first.number, second.number, again.number) == (1, 2, 1)
    assert store.resolve("acme/task").number == 1
    assert [version.number for version in store.versions("acme/task")] == [2, 1]
