"""Every way to break an artefact is refused with its own reason, and nothing is stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from refusal_cases import CASES, Case, mutate
from store_kit import bank, contents, low_rank, routing, save_t5

from adapters_store.artefact import read_artefact, write_artefact
from adapters_store.backbone import Backbone
from adapters_store.canonical import canonical_json
from adapters_store.errors import (
    ArtefactTooLargeError,
    IncompatibleError,
    InvalidArtefactError,
    InvalidNameError,
    PatchbayError,
    UnsafeArtefactError,
)
from adapters_store.limits import Limits
from adapters_store.manifest import parse_manifest
from adapters_store.store import Store


@pytest.fixture(scope="module")
def gate(tmp_path_factory, t5: Backbone, bert: Backbone):
    """A store with one bank, and a sound artefact of each base."""
    folder = tmp_path_factory.mktemp("gate")
    shared = bank(t5)
    bases = {
        "adapter": low_rank(t5),
        "bank": bank(t5, seed=8),
        "routing": routing(t5, shared),
        "bert": low_rank(bert),
    }
    with Store.open(folder) as store:
        store.add_backbone(t5)
        store.add_backbone(bert)
        store.publish("acme/bank", shared)
        yield store, folder, bases


def state(store: Store, folder: Path) -> Any:
    """Everything that a refused publication must leave alone."""
    names = [version.reference for version in store.list()]
    return contents(folder), names, store.generation(), len(store.verify())


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_broken_artefact_is_refused_and_nothing_is_stored(gate, case: Case):
    store, folder, bases = gate
    before = state(store, folder)
    with pytest.raises(PatchbayError) as caught:
        store.publish("acme/broken", mutate(case, bases[case.base]))
    assert type(caught.value) is case.error
    assert case.words in caught.value.message
    assert caught.value.hint
    assert caught.value.code == case.error.code
    assert state(store, folder) == before


def test_the_unbroken_bases_are_accepted(gate, tmp_path, t5, bert):
    _, _, bases = gate
    with Store.open(tmp_path) as store:
        store.add_backbone(t5)
        store.add_backbone(bert)
        store.publish("acme/shared", bank(t5))
        for name, base in bases.items():
            assert store.publish(f"acme/{name}", base).number == 1


@pytest.mark.parametrize(
    "name",
    ["../etc/passwd", "acme/../x", "acme/..", "/acme/x", "acme//x", "acme/x/y", "Acme/x", "acme/",
     "acme/x@prod", "acme/x:1", "acme/x\n", "acme/" + "a" * 64, "acme/%2e%2e", "", "acme"],
)  # fmt: skip
def test_bad_name_is_refused_and_nothing_is_stored(gate, name: str):
    store, folder, bases = gate
    before = state(store, folder)
    with pytest.raises(InvalidNameError):
        store.publish(name, bases["adapter"])
    assert state(store, folder) == before


@pytest.mark.parametrize("alias", ["latest", "v7", "7", "../x", "Prod", ""])
def test_reserved_or_bad_alias_is_refused_before_anything_is_stored(gate, alias: str):
    store, folder, bases = gate
    before = state(store, folder)
    with pytest.raises(InvalidNameError):
        store.publish("acme/x", bases["adapter"], aliases=(alias,))
    assert state(store, folder) == before


def test_batch_with_one_broken_artefact_stores_none(gate):
    store, folder, bases = gate
    before = state(store, folder)
    broken = mutate(next(case for case in CASES if case.name == "nan"), bases["adapter"])
    with pytest.raises(InvalidArtefactError, match="NaN"):
        store.publish_many([("acme/a", bases["adapter"]), ("acme/b", broken)])
    assert state(store, folder) == before


@pytest.mark.parametrize("file", ["manifest.json", "data.safetensors"])
def test_symbolic_link_in_a_source_folder_is_refused(tmp_path, t5, file: str):
    write_artefact(low_rank(t5), tmp_path / "real")
    write_artefact(low_rank(t5), tmp_path / "linked")
    (tmp_path / "linked" / file).unlink()
    (tmp_path / "linked" / file).symlink_to(tmp_path / "real" / file)
    with pytest.raises(UnsafeArtefactError, match="symbolic link"):
        read_artefact(tmp_path / "linked")


def test_manifest_that_repeats_a_key_is_refused(t5):
    text = low_rank(t5).manifest.canonical
    with pytest.raises(InvalidArtefactError, match="repeats the key 'kind'"):
        parse_manifest(b'{"kind":"bank",' + text[1:])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"\x80\x04\x95\x10\x00\x00\x00\x00\x00", "pickle"),
        (b"{", "not JSON"),
        (b"\xff\xfe{}", "UTF-8"),
        (b"[]", "manifest"),
        (b'{"provenance": NaN}', "NaN"),
    ],
)
def test_manifest_that_is_no_manifest_is_refused(text: bytes, words: str):
    with pytest.raises(InvalidArtefactError, match=words):
        parse_manifest(text)


def test_sizes_are_limited_before_anything_is_parsed(t5, tmp_path):
    artefact = low_rank(t5)
    write_artefact(artefact, tmp_path / "source")
    tight = Limits(max_data_bytes=len(artefact.data) - 1)
    with pytest.raises(ArtefactTooLargeError, match="the limit is"):
        read_artefact(tmp_path / "source", limits=tight)
    with Store.open(tmp_path / "store", limits=tight) as store:
        store.add_backbone(t5)
        with pytest.raises(ArtefactTooLargeError, match="the limit is"):
            store.publish("acme/x", artefact)
        assert contents(tmp_path / "store") == {}
    with pytest.raises(ArtefactTooLargeError, match="manifest has"):
        parse_manifest(artefact.manifest.canonical, limits=Limits(max_manifest_bytes=10))


def test_artefact_of_an_unregistered_backbone_is_refused(gate, tmp_path):
    store, folder, _ = gate
    stranger = Backbone.from_folder(save_t5(tmp_path / "stranger", seed=5))
    before = state(store, folder)
    with pytest.raises(IncompatibleError, match="another backbone"):
        store.publish("acme/x", low_rank(stranger))
    assert state(store, folder) == before


def test_provenance_must_be_json(t5):
    with pytest.raises(InvalidArtefactError, match="provenance"):
        low_rank(t5, provenance={"loss": float("nan")})
    assert canonical_json({"b": 1, "a": "é"}) == '{"a":"é","b":1}'.encode()
