"""Golden adapters written for PEFT again: PEFT computes the same, and nothing of them is lost."""

from __future__ import annotations

import json
from pathlib import Path

import peft
import pytest
import torch
import transformers
from golden_kit import GOLDEN, golden_backbone
from make_peft import base_model, outputs
from peft_cases import CASES
from safetensors.torch import load_file

from adapters_store.artefact import Artefact
from adapters_store.formats.importing import import_from
from adapters_store.formats.peft.export import export_peft
from adapters_store.formats.source import FolderSource

TOLERANCE = 1e-5
# Every other warning is an error, such as PEFT's for tensors that are missing.
pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning"),
    pytest.mark.filterwarnings("ignore:`lora_bias=True` was passed:UserWarning"),
]


@pytest.fixture(autouse=True)
def quiet():
    transformers.logging.set_verbosity_error()


def imported(name: str, folder: Path) -> dict[str, Artefact]:
    return dict(import_from(FolderSource(folder), golden_backbone(CASES[name].family).record))


def exported(name: str, folder: Path) -> dict[str, Path]:
    """Every task of a golden case as a PEFT folder, by the suffix of the artefact's name."""
    artefacts = imported(name, GOLDEN / "peft" / name)
    bank = artefacts.pop("-bank", None)
    backbone = golden_backbone(CASES[name].family)
    return {
        suffix: export_peft(artefact, backbone, folder / f"task{suffix}", bank)
        for suffix, artefact in artefacts.items()
    }


@pytest.mark.parametrize("name", CASES)
def test_peft_loads_what_is_exported_and_computes_the_same(name: str, tmp_path: Path):
    case, given = CASES[name], load_file(GOLDEN / "peft" / name / "expected.safetensors")
    expected, tasks = given.pop("outputs"), given.pop("task_ids", None)
    for suffix, folder in exported(name, tmp_path).items():
        model = peft.PeftModel.from_pretrained(base_model(case), folder)
        if tasks is None:
            found, wanted = outputs(model, given), expected
        else:
            row = int(suffix.rpartition("-")[2])
            first = torch.zeros(len(tasks), dtype=torch.long)
            found, wanted = outputs(model, given | {"task_ids": first})[row], expected[row]
        torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_nothing_is_lost_on_the_way_out_and_in_again(name: str, tmp_path: Path):
    before = imported(name, GOLDEN / "peft" / name)
    for suffix, folder in exported(name, tmp_path).items():
        after = imported(name, folder)
        bank = after.pop("-bank", None)
        if bank is not None:
            assert bank.manifest.content_digest == before["-bank"].manifest.content_digest
            assert bank.manifest.parts == before["-bank"].manifest.parts
        (found,) = after.values()
        assert found.manifest.content_digest == before[suffix].manifest.content_digest
        assert set(found.manifest.parts) == set(before[suffix].manifest.parts)


@pytest.mark.parametrize("name", ["llama-lora", "t5-poly", "bert-prefix-classifier"])
def test_the_same_artefact_is_exported_as_the_same_files(name: str, tmp_path: Path):
    first, second = exported(name, tmp_path / "a"), exported(name, tmp_path / "b")
    for suffix, folder in first.items():
        for path in folder.iterdir():
            assert path.read_bytes() == (second[suffix] / path.name).read_bytes()


def test_the_card_tells_what_peft_has_no_place_for(tmp_path: Path):
    (folder,) = exported("bert-lora-classifier", tmp_path).values()
    card = (folder / "README.md").read_text()
    (artefact,) = imported("bert-lora-classifier", GOLDEN / "peft/bert-lora-classifier").values()
    assert artefact.digest in card
    assert '"label_2"' in card
    assert json.loads((folder / "adapter_config.json").read_text())["task_type"] == "SEQ_CLS"
