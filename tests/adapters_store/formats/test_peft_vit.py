"""A vision transformer's LoRA with its classifier, which PEFT saves without a task type."""

from __future__ import annotations

from pathlib import Path

import peft
import pytest
import torch
import transformers
from peft_kit import write_peft

from adapters_store.backbone import Backbone
from adapters_store.formats import inspect
from adapters_store.formats.importing import import_from
from adapters_store.formats.peft.export import export_peft
from adapters_store.formats.source import FolderSource
from training.reference import applied

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "image_size": 8,
    "patch_size": 4,
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_classifier_of_an_image_model_becomes_the_head(tmp_path: Path):
    torch.manual_seed(0)
    config = transformers.ViTConfig(**SIZES)
    transformers.ViTModel(config, add_pooling_layer=False).save_pretrained(tmp_path / "base")
    auto = transformers.AutoModelForImageClassification

    def base() -> torch.nn.Module:
        torch.manual_seed(1)
        return auto.from_pretrained(tmp_path / "base", num_labels=3).eval()

    targets = ".*(q_proj|query)"
    settings = peft.LoraConfig(r=2, target_modules=targets, modules_to_save=["classifier"])
    theirs = peft.get_peft_model(base(), settings).eval()
    for parameter in theirs.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    theirs.save_pretrained(tmp_path / "adapter")
    backbone = Backbone.from_folder(tmp_path / "base")
    ((_, artefact),) = import_from(FolderSource(tmp_path / "adapter"), backbone.record)
    pixels = torch.randn(2, 3, 8, 8)
    model = transformers.AutoModel.from_pretrained(tmp_path / "base").eval()
    with torch.inference_mode():
        expected = theirs(pixel_values=pixels).logits
        with applied(model, backbone, artefact) as ours:
            hidden = ours(pixel_values=pixels).last_hidden_state
            found = ours.head(hidden, torch.ones(hidden.shape[:2], dtype=torch.long))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    export_peft(artefact, backbone, tmp_path / "out")
    again = peft.PeftModel.from_pretrained(base(), tmp_path / "out").eval()
    with torch.inference_mode():
        torch.testing.assert_close(again(pixel_values=pixels).logits, expected)


def test_paths_of_an_older_version_are_the_same_sites(tmp_path: Path):
    transformers.ViTModel(transformers.ViTConfig(**SIZES)).save_pretrained(tmp_path / "base")
    record = Backbone.from_folder(tmp_path / "base").record
    names = [f"vit.encoder.layer.{i}.attention.attention.query" for i in range(2)]
    tensors = {f"base_model.model.{name}.lora_A.weight": torch.ones(2, 16) for name in names}
    tensors |= {f"base_model.model.{name}.lora_B.weight": torch.ones(16, 2) for name in names}
    config = {"peft_type": "LORA", "r": 2, "target_modules": ["query"]}
    found = inspect(FolderSource(write_peft(tmp_path / "old", config, tensors)), record)
    assert [part.site for part in found.parts] == ["encoder.0.self.q", "encoder.1.self.q"]
    assert found.notes == ()
