"""A backbone's fingerprint binds its configuration and every tensor, and nothing else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from store_kit import low_rank, save_bert, save_t5

from adapters_store.artefact import build_artefact, load_tensors
from adapters_store.backbone import Backbone
from adapters_store.errors import (
    IncompatibleError,
    InvalidArtefactError,
    InvalidNameError,
    NotFoundError,
    UnsafeArtefactError,
)
from adapters_store.manifest import LowRankPart, TaskSignature


@pytest.fixture
def model(tmp_path) -> Path:
    return save_t5(tmp_path / "model")


def fingerprint(folder: Path) -> str:
    return Backbone.from_folder(folder).fingerprint


def edit_config(folder: Path, **changes) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_the_same_model_saved_twice_has_one_fingerprint(model, tmp_path):
    assert fingerprint(save_t5(tmp_path / "again")) == fingerprint(model)
    assert fingerprint(save_t5(tmp_path / "other", seed=1)) != fingerprint(model)


def test_loading_details_and_neighbouring_files_do_not_count(model):
    before = fingerprint(model)
    edit_config(model, transformers_version="0.0", _name_or_path="/x", dtype="bfloat16")
    (model / "README.md").write_text("hello")
    save_file({"x": torch.zeros(1)}, model / "adapter_model.safetensors")
    assert fingerprint(model) == before


def test_configuration_counts(model):
    before = fingerprint(model)
    edit_config(model, layer_norm_epsilon=1e-5)
    assert fingerprint(model) != before


def test_one_changed_value_counts(model):
    before = fingerprint(model)
    tensors = load_file(model / "model.safetensors")
    tensors["shared.weight"][3, 3] += 1e-3
    save_file(tensors, model / "model.safetensors")
    assert fingerprint(model) != before


def test_the_split_over_files_does_not_count(model):
    before = fingerprint(model)
    tensors = load_file(model / "model.safetensors")
    names = sorted(tensors)
    (model / "model.safetensors").unlink()
    save_file({n: tensors[n] for n in names[::2]}, model / "model-00001-of-00002.safetensors")
    save_file({n: tensors[n] for n in names[1::2]}, model / "model-00002-of-00002.safetensors")
    assert fingerprint(model) == before
    save_file({names[0]: tensors[names[0]]}, model / "model-00003.safetensors")
    with pytest.raises(InvalidArtefactError, match="is in both"):
        fingerprint(model)


def test_folders_without_a_sound_model_are_refused(model, tmp_path):
    with pytest.raises(NotFoundError, match=r"config\.json is missing"):
        Backbone.from_folder(tmp_path / "none")
    shutil.copy(model / "config.json", tmp_path / "config.json")
    with pytest.raises(InvalidArtefactError, match=r"no \*\.safetensors"):
        Backbone.from_folder(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"x")
    with pytest.raises(UnsafeArtefactError, match="pickled weights"):
        Backbone.from_folder(tmp_path)
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(InvalidArtefactError, match="truncated"):
        Backbone.from_folder(model)
    (model / "config.json").write_text("{")
    with pytest.raises(InvalidArtefactError, match="not JSON"):
        Backbone.from_folder(model)
    (model / "config.json").write_text('{"model_type": "pegasus"}')
    with pytest.raises(IncompatibleError, match="pegasus"):
        Backbone.from_folder(model)


def test_a_backbone_describes_itself(model, tmp_path):
    backbone = Backbone.from_folder(model, name="small")
    assert (backbone.name, backbone.family.name) == ("small", "t5")
    assert backbone.architecture.is_encoder_decoder
    assert next(iter(backbone.sites)) == "encoder.0.self.q"
    assert backbone.record.shapes == backbone.shapes
    assert backbone.record.architecture == backbone.architecture
    bert = Backbone.from_folder(save_bert(tmp_path / "Bert Model"))
    assert bert.name == "bert-model"
    assert not bert.architecture.is_encoder_decoder
    with pytest.raises(InvalidNameError):
        Backbone.from_folder(model, name="No Good")


def test_building_validates_at_once(t5):
    part = LowRankPart(site="encoder.0.self.q", rank=2, scale=1.0)
    wrong = {"encoder.0.self.q/low_rank/a": torch.zeros(16, 2)}
    with pytest.raises(InvalidArtefactError, match="missing tensor"):
        build_artefact(
            kind="adapter",
            backbone=t5,
            parts=[part],
            tensors=wrong,
            signature=TaskSignature(task="text2text"),
        )
    with pytest.raises(InvalidArtefactError, match="signature"):
        build_artefact(kind="adapter", backbone=t5, parts=[part], tensors=wrong)


def test_building_takes_views_and_gradients(t5):
    site = t5.sites["encoder.0.self.q"]
    a = torch.randn(2, site.in_features, requires_grad=True).T
    b = torch.zeros(2, site.out_features)
    shared = torch.nn.Parameter(b)
    artefact = build_artefact(
        kind="adapter",
        backbone=t5,
        parts=[LowRankPart(site=site.name, rank=2, scale=1)],
        tensors={f"{site.name}/low_rank/a": a, f"{site.name}/low_rank/b": shared},
        signature=TaskSignature(task="text2text"),
    )
    assert artefact.manifest.low_rank_parts[0].scale == 1.0
    assert artefact.digest != low_rank(t5).digest


def test_one_tensor_under_two_names_is_stored_twice(t5):
    same = torch.ones(16, 2)
    names = ("encoder.0.self.q", "encoder.1.self.q")
    tensors = {f"{name}/low_rank/a": same for name in names}
    tensors |= {f"{name}/low_rank/b": torch.ones(2, 8) for name in names}
    artefact = build_artefact(
        kind="adapter",
        backbone=t5,
        parts=[LowRankPart(site=name, rank=2, scale=1.0) for name in names],
        tensors=tensors,
        signature=TaskSignature(task="text2text"),
    )
    assert all(torch.equal(load_tensors(artefact)[f"{name}/low_rank/a"], same) for name in names)


def test_a_prompt_template_is_filled_in_literally():
    signature = TaskSignature(task="text2text", prompt_template="Fix {x}: {input} =>")
    assert signature.render("a {input} b") == "Fix {x}: a {input} b =>"
