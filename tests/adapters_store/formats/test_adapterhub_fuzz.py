"""No value in a configuration of ``adapters`` ends in anything but a verdict or a typed error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from adapterhub_cases import CASES
from golden_kit import golden_backbone
from hub_kit import Saved, read

from adapters_store.errors import InvalidArtefactError
from adapters_store.formats import inspect
from adapters_store.formats.adapterhub.methods import METHODS
from adapters_store.formats.importing import import_from
from adapters_store.formats.reasons import REASONS
from adapters_store.formats.source import FolderSource

STRANGE = (
    None, True, False, 0, 1, -1, 2**30, 2**40, 2**70, 10**400, 0.5, 1e-320, 1e300, -1.0, "", "x",
    "learned", [], [0], ["q"], [[]], {}, {"default": 0}, {"default": "x"}, {"0": 8, "1": None},
)  # fmt: skip
SAMPLES = {
    "bottleneck": ("bert-seq_bn", "bert-compacter"),
    "lora": ("bert-lora", "gpt2-lora", "gpt2-ia3"),
    "prompt_tuning": ("bert-prompt_tuning",),
}


def judge(saved: Saved, folder: Path, case: str) -> None:
    source = FolderSource(saved.write(folder))
    record = golden_backbone(CASES[case].backbone).record
    found = inspect(source, record)
    assert {reason.code for reason in (*found.reasons, *found.notes)} <= set(REASONS)
    json.dumps(found.as_json())
    if found.verdict == "convert":
        try:
            [(_, artefact)] = import_from(source, record)
        except InvalidArtefactError:
            return
        assert artefact.manifest.parts == found.parts
    else:
        assert found.reasons


def test_every_method_but_the_pickled_one_has_samples() -> None:
    assert set(METHODS) - set(SAMPLES) == {"prefix_tuning"}


@pytest.mark.parametrize("case", [case for cases in SAMPLES.values() for case in cases])
def test_no_value_of_an_option_escapes(tmp_path: Path, case: str) -> None:
    [method] = [name for name, cases in SAMPLES.items() if case in cases]
    for option in METHODS[method][0]:
        for value in STRANGE:
            saved = read(case)
            saved.config[option.name] = value
            judge(saved, tmp_path / "adapter", case)


@pytest.mark.parametrize("place", ["document", "head", "head config"])
def test_no_value_of_a_document_escapes(tmp_path: Path, place: str) -> None:
    def chosen(saved: Saved) -> dict[str, Any]:
        assert saved.head is not None
        return {
            "document": saved.document,
            "head": saved.head,
            "head config": saved.head["config"],
        }[place]

    for key in chosen(read("bert-head")):
        for value in STRANGE:
            saved = read("bert-head")
            chosen(saved)[key] = value
            judge(saved, tmp_path / "adapter", "bert-head")


def test_no_value_in_a_static_heads_document_escapes(tmp_path: Path) -> None:
    for key in ("config", "label2id", "num_labels", "model_class", "name"):
        for value in STRANGE:
            saved = read("bert-static_head")
            assert saved.head is not None
            saved.head[key] = value
            judge(saved, tmp_path / "adapter", "bert-static_head")


@pytest.mark.parametrize("flat", [True, False])
def test_no_value_of_prefix_options_escapes(tmp_path: Path, flat: bool) -> None:
    for option in METHODS["prefix_tuning"][0]:
        for value in STRANGE:
            saved = read("bert-seq_bn")
            saved.document["config"] = {
                "architecture": "prefix_tuning",
                "flat": flat,
                option.name: value,
            }
            judge(saved, tmp_path / "adapter", "bert-seq_bn")
