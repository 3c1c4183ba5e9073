"""Golden PEFT adapters: what is imported computes what PEFT computed, and keeps its content."""

from __future__ import annotations

import json

import pytest
import torch
import transformers
from golden_kit import GOLDEN, golden_backbone
from peft_cases import AUTO_MODELS, CASES
from safetensors.torch import load_file

from adapters_store.formats import ImportOptions
from adapters_store.formats.importing import import_from
from adapters_store.formats.source import FolderSource
from training.reference import applied

FOLDER = GOLDEN / "peft"
DIGESTS = json.loads((FOLDER / "digests.json").read_text())
MAX_BYTES = 5 * 2**20
TOLERANCE = 1e-5


def imported(name: str, options: ImportOptions | None = None):
    backbone = golden_backbone(CASES[name].family)
    return import_from(FolderSource(FOLDER / name), backbone.record, options)


def our_outputs(name, given, artefact, bank=None):
    """What the reference computes: logits, or the last hidden state where there is no head."""
    case = CASES[name]
    backbone = golden_backbone(case.family)
    auto = transformers.AutoModel if case.task == "SEQ_CLS" else AUTO_MODELS[case.task]
    model = auto.from_pretrained(backbone.folder).eval()
    with torch.inference_mode(), applied(model, backbone, artefact, bank) as adapted:
        outputs = adapted(**given)
        if case.task == "SEQ_CLS":
            return adapted.head(outputs, given["attention_mask"])
    return outputs.logits if "logits" in outputs else outputs.last_hidden_state


def assert_equal(name, found, expected, mask):
    """Compare what stands at tokens; padding computes nothing that anyone reads."""
    assert found.shape == expected.shape
    if CASES[name].task in ("CAUSAL_LM", "FEATURE_EXTRACTION"):
        num_tokens = mask.shape[1]
        found, expected = found[:, -num_tokens:], expected[:, -num_tokens:]
        found, expected = found[mask == 1], expected[mask == 1]
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize("name", CASES)
def test_an_imported_adapter_computes_what_peft_computed(name: str):
    given = load_file(FOLDER / name / "expected.safetensors")
    expected, tasks = given.pop("outputs"), given.pop("task_ids", None)
    artefacts = dict(imported(name))
    if tasks is None:
        found = our_outputs(name, given, artefacts[""])
    else:
        bank = artefacts["-bank"]
        of_task = [
            our_outputs(name, given, artefacts[f"-task-{int(task)}"], bank)[row]
            for row, task in enumerate(tasks)
        ]
        found = torch.stack(of_task)
    assert_equal(name, found, expected, given["attention_mask"])


@pytest.mark.parametrize("name", [name for name in CASES if "-poly" in name])
def test_one_task_of_poly_as_plain_lora_computes_the_same(name: str):
    given = load_file(FOLDER / name / "expected.safetensors")
    expected, tasks = given.pop("outputs"), given.pop("task_ids")
    for row, task in enumerate(tasks):
        artefacts = dict(imported(name, ImportOptions(poly_task=int(task))))
        assert set(artefacts) == {""}
        assert artefacts[""].manifest.low_rank_parts
        found = our_outputs(name, given, artefacts[""])[row : row + 1]
        mask = given["attention_mask"][row : row + 1]
        assert_equal(name, found, expected[row : row + 1], mask)


@pytest.mark.parametrize("name", CASES)
def test_a_golden_adapter_keeps_its_content(name: str):
    found = {suffix: artefact.manifest.content_digest for suffix, artefact in imported(name)}
    assert found == DIGESTS[name]


def test_every_golden_folder_has_a_case():
    assert {path.name for path in FOLDER.iterdir() if path.is_dir()} == set(CASES) == set(DIGESTS)


def test_golden_files_stay_small():
    files = [path for path in GOLDEN.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MAX_BYTES
