"""Every family trains, compiles and restores at every site: LoRA and a routed bank."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families_kit import build, golden_config, model_inputs
from torch.testing import assert_close

from adapters_store.backbone import Backbone
from adapters_store.families import MODEL_TYPES
from adapters_store.signature import TaskSignature
from training.compile import bank_sites, compile_bank, compile_task
from training.injection import eject
from training.methods import MethodConfig
from training.model import AdaptedModel
from training.restore import restore


def saved(model_type: str, folder: Path) -> tuple[Any, Backbone]:
    """The bare model of the golden configuration, and its folder as a backbone."""
    model = build(golden_config(model_type))
    model.save_pretrained(folder)
    return model, Backbone.from_folder(folder, name="tiny")


def about(backbone: Backbone) -> TaskSignature:
    """A signature that the backbone's kind of model can have."""
    if backbone.shapes.anatomy.can_generate:
        return TaskSignature(task="text2text", max_input_tokens=8)
    return TaskSignature(task="classification", labels=("no", "yes"), max_input_tokens=8)


@pytest.mark.parametrize("method", ["lora", "mhr"])
@pytest.mark.parametrize("model_type", MODEL_TYPES)
def test_a_method_trains_at_every_site_and_compiles_exactly(
    model_type: str, method: str, tmp_path: Path
) -> None:
    model, backbone = saved(model_type, tmp_path)
    signature = about(backbone)
    inputs, task = model_inputs(model), torch.zeros(2, dtype=torch.long)
    with torch.no_grad():
        plain = model(**inputs).last_hidden_state
    sites = list(backbone.sites.values())
    num_labels = [len(signature.labels)] if signature.labels else []
    config = MethodConfig(method, rank=2, num_skills=3, num_heads=2)
    adapted = AdaptedModel.build(model, sites, config, num_labels=num_labels).eval()
    for name, parameter in adapted.named_parameters():
        if ".method." in name:
            torch.nn.init.normal_(parameter, std=0.1)
    output = adapted(task, **inputs).last_hidden_state
    assert not torch.allclose(output, plain, atol=1e-3)
    output.square().mean().backward()
    for name, parameter in adapted.named_parameters():
        is_method = ".method." in name
        assert parameter.requires_grad == (is_method or name.startswith("heads."))
        assert not is_method or (parameter.grad is not None and bool(parameter.grad.any())), name

    bank = compile_bank(adapted, backbone) if bank_sites(adapted) else None
    artefact = compile_task(adapted, 0, backbone, signature, bank=bank)
    fresh = type(model).from_pretrained(tmp_path)
    with torch.no_grad():
        found = restore(fresh, backbone, artefact, bank)(task, **inputs).last_hidden_state
    assert_close(found, output.detach(), atol=2e-5, rtol=1e-4)

    eject(model, adapted.sites)
    with torch.no_grad():
        assert torch.equal(model(**inputs).last_hidden_state, plain)
