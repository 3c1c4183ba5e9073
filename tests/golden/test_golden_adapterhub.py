"""Golden adapters of ``adapters``: an import computes what the library did, or says why not."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import transformers
from adapterhub_cases import CASES, folder_digest
from adapterhub_kit import (
    CONVERTED,
    FOLDER,
    REJECTED,
    convert_pickled,
    exported,
    imported,
    source_of,
)
from golden_kit import GOLDEN, golden_backbone
from safetensors.torch import load_file

from adapters_store.formats import inspect
from adapters_store.formats.importing import import_from
from adapters_store.formats.source import FolderSource
from training.reference import applied

VERIFIED = json.loads((GOLDEN / "adapterhub_exports.json").read_text())
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return convert_pickled(tmp_path_factory.mktemp("adapterhub"))


@pytest.mark.parametrize("case", CONVERTED, ids=lambda case: case.name)
def test_an_imported_adapter_computes_what_the_library_computed(case, converted: Path) -> None:
    backbone, artefact = golden_backbone(case.backbone), imported(case, converted)
    given = load_file(FOLDER / case.name / "expected.safetensors")
    logits, expected = given.pop("logits", None), given.pop("last_hidden_state", None)
    model = transformers.AutoModel.from_pretrained(backbone.folder).eval()
    with torch.inference_mode(), applied(model, backbone, artefact) as adapted:
        found = adapted(**given).last_hidden_state
        mask = given.get("attention_mask", torch.ones(found.shape[:2], dtype=torch.long))
        if logits is not None:
            found, expected = adapted.head(found, mask), logits
    assert expected is not None
    assert found.shape == expected.shape
    if logits is None and "decoder_input_ids" not in given:
        num_tokens = mask.shape[1]
        found, expected = found[:, -num_tokens:][mask == 1], expected[:, -num_tokens:][mask == 1]
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("case", CONVERTED, ids=lambda case: case.name)
def test_an_export_is_what_the_library_was_held_to_and_loses_nothing(
    case, converted: Path, tmp_path: Path
) -> None:
    artefact = imported(case, converted)
    folder = exported(case, converted, tmp_path / "out")
    assert folder_digest(folder) == VERIFIED[case.name]
    record = golden_backbone(case.backbone).record
    [(_, again)] = import_from(FolderSource(folder), record)
    assert again.manifest.content_digest == artefact.manifest.content_digest
    assert again.manifest.parts == artefact.manifest.parts
    assert again.manifest.signature == artefact.manifest.signature


@pytest.mark.parametrize("case", REJECTED, ids=lambda case: case.name)
def test_what_would_be_another_equation_is_rejected_by_name(case, converted: Path) -> None:
    found = inspect(source_of(case, converted), golden_backbone(case.backbone).record)
    assert found.verdict == "reject"
    assert {reason.code for reason in found.reasons} == {case.reject}


def test_a_pickle_is_rejected_with_the_way_to_convert_it() -> None:
    found = inspect(FolderSource(FOLDER / "bert-mam" / "adapter"), golden_backbone("bert").record)
    [reason] = found.reasons
    assert reason.code == "unsafe"
    assert "pytorch_adapter.bin is a pickle" in reason.message
    assert "patchbay adapters convert" in reason.message


def test_a_compacter_of_a_bare_model_names_the_rule_that_it_lost() -> None:
    folder = FOLDER / "bert-compacter_bare" / "adapter"
    [reason] = inspect(FolderSource(folder), golden_backbone("bert").record).reasons
    assert "shared_parameters.task.phm_rule" in reason.message


def test_a_head_brings_its_labels(converted: Path) -> None:
    signature = imported(CASES["bert-head"], converted).manifest.signature
    assert signature is not None
    assert (signature.task, signature.labels) == ("classification", ("cold", "mild", "warm"))


def test_a_language_models_head_is_left_to_the_backbone_with_a_note() -> None:
    folder = FOLDER / "llama-lm_head" / "adapter"
    found = inspect(FolderSource(folder), golden_backbone("llama").record)
    assert [(note.code, note.where) for note in found.notes] == [
        ("recorded", "model_name"),
        ("base_weights", "head_config.json"),
    ]
    assert {part.primitive for part in found.parts} == {"bottleneck"}


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("bert-seq_bn", "bottleneck"),
        ("bert-compacter", "compacter"),
        ("gpt2-ia3", "ia3"),
        ("llama-union", "bottleneck+lora"),
    ],
)
def test_methods_have_names_for_people(name: str, method: str) -> None:
    record = golden_backbone(CASES[name].backbone).record
    assert inspect(FolderSource(FOLDER / name / "adapter"), record).method == method


def test_every_case_has_a_folder_and_every_folder_a_case() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(CASES)
    assert set(VERIFIED) == {case.name for case in CONVERTED}


def test_no_golden_configuration_holds_an_absolute_path() -> None:
    for path in FOLDER.rglob("*.json"):
        assert not str(json.loads(path.read_text())["model_name"]).startswith("/")
