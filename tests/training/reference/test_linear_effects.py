"""``low_rank``, ``mixture``, ``scale`` and ``override`` against weights changed by hand."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from reference_kit import answer, artefact_of, backbone_of, batch_of, model_of, routing_of
from torch import nn
from transformers.pytorch_utils import Conv1D

from adapters_store.artefact import load_tensors
from adapters_store.backbone import Backbone
from adapters_store.errors import PatchbayError
from adapters_store.primitives.low_rank import LowRankPart
from adapters_store.primitives.override import OverridePart
from adapters_store.primitives.scale import ScalePart
from training.reference import applied

NAMES = ("llama", "gpt2", "t5", "bart", "bert")


@pytest.fixture(params=NAMES)
def backbone(request: pytest.FixtureRequest) -> Backbone:
    return backbone_of(request.param)


def multiply_in(module: nn.Module, matrix: torch.Tensor) -> None:
    """Add ``matrix`` (in, out) to the weight of a linear map of either orientation."""
    module.weight.data += matrix if isinstance(module, Conv1D) else matrix.T


def check_equal_to(merged: Any, backbone: Backbone, artefact: Any, bank: Any = None) -> None:
    """The applied artefact gives what the merged model gives, and not what the bare one gives."""
    model = model_of(backbone)
    for padding in ("left", "right"):
        batch = batch_of(backbone, padding=padding)
        with applied(model, backbone, artefact, bank) as adapted:
            found = answer(adapted, **batch)
        torch.testing.assert_close(found, answer(merged, **batch), atol=1e-5, rtol=1e-5)
        assert (found - answer(model, **batch)).abs().max() > 1e-2


def test_low_rank_equals_merged_weights(backbone: Backbone) -> None:
    parts = [LowRankPart(site=name, rank=3, scale=0.7) for name in backbone.sites]
    artefact = artefact_of(backbone, parts)
    tensors, merged = load_tensors(artefact), model_of(backbone)
    for name, site in backbone.sites.items():
        a, b = tensors[f"{name}/low_rank/a"], tensors[f"{name}/low_rank/b"]
        multiply_in(merged.base_model.get_submodule(site.module_path), 0.7 * a @ b)
    check_equal_to(merged, backbone, artefact)


@pytest.mark.parametrize("num_heads", [1, 4])
def test_routing_equals_the_bank_mixed_by_loops(backbone: Backbone, num_heads: int) -> None:
    bank, routing = routing_of(backbone, num_heads=num_heads, num_skills=3)
    tensors, shared, merged = load_tensors(routing), load_tensors(bank), model_of(backbone)
    for number, part in enumerate(bank.manifest.bank_parts):
        w = tensors["routing/weights"][number]
        a, b = shared[f"{part.site}/mixture/a"], shared[f"{part.site}/mixture/b"]
        A = torch.cat([sum(w[h, k] * a[h, k] for k in range(3)) for h in range(num_heads)], dim=0)
        B = torch.cat([sum(w[h, k] * b[h, k] for k in range(3)) for h in range(num_heads)], dim=1)
        path = backbone.sites[part.site].module_path
        multiply_in(merged.base_model.get_submodule(path), part.scale * A @ B)
    check_equal_to(merged, backbone, routing, bank)


@pytest.mark.parametrize("side", ["input", "output"])
def test_scale_equals_scaled_weights(backbone: Backbone, side: str) -> None:
    parts = [ScalePart.model_validate({"site": name, "side": side}) for name in backbone.sites]
    artefact = artefact_of(backbone, parts)
    tensors, merged = load_tensors(artefact), model_of(backbone)
    for name, site in backbone.sites.items():
        module, v = (
            merged.base_model.get_submodule(site.module_path),
            tensors[f"{name}/scale/{side}"],
        )
        is_transposed = isinstance(module, Conv1D)
        if side == "input":
            module.weight.data *= v[:, None] if is_transposed else v
        else:
            module.weight.data *= v if is_transposed else v[:, None]
            if module.bias is not None:
                module.bias.data *= v
    check_equal_to(merged, backbone, artefact)


@pytest.mark.parametrize("operation", ["replace", "add"])
def test_override_equals_the_vector_in_its_place(backbone: Backbone, operation: str) -> None:
    vectors = backbone.shapes.anatomy.vectors
    parts = [
        OverridePart.model_validate({"vector": one.name, "operation": operation}) for one in vectors
    ]
    artefact = artefact_of(backbone, parts)
    tensors, merged = load_tensors(artefact), model_of(backbone)
    for one in vectors:
        path, _, leaf = one.parameter_path.rpartition(".")
        module, value = merged.base_model.get_submodule(path), tensors[f"{one.name}/override/value"]
        if not one.is_present:
            module.bias = nn.Parameter(value)
        elif operation == "replace":
            setattr(module, leaf, nn.Parameter(value))
        else:
            getattr(module, leaf).data += value
    check_equal_to(merged, backbone, artefact)


@pytest.mark.parametrize("name", ["bert", "gpt2", "t5"])
def test_effects_of_one_site_act_in_the_stated_order(name: str) -> None:
    backbone, model = backbone_of(name), model_of(backbone_of(name))
    site = next(iter(backbone.sites.values()))
    parts = [
        OverridePart(vector=f"{site.name}.bias", operation="add"),
        ScalePart(site=site.name, side="output"),
        LowRankPart(site=site.name, rank=2, scale=1.5),
        ScalePart(site=site.name, side="input"),
    ]
    artefact = artefact_of(backbone, parts)
    t = load_tensors(artefact)
    module = model.base_model.get_submodule(site.module_path)
    x = torch.randn(2, 3, site.in_features)
    scaled = x * t[f"{site.name}/scale/input"]
    with torch.no_grad():
        y = copy.deepcopy(module)(scaled) + t[f"{site.name}.bias/override/value"]
        y = y + 1.5 * ((scaled @ t[f"{site.name}/low_rank/a"]) @ t[f"{site.name}/low_rank/b"])
        with applied(model, backbone, artefact):
            found = module(x)
    torch.testing.assert_close(found, y * t[f"{site.name}/scale/output"], atol=1e-6, rtol=1e-5)


def refusal(*arguments: Any) -> PatchbayError:
    """The error that applying these gives."""
    with pytest.raises(PatchbayError) as caught, applied(*arguments):
        pass
    return caught.value


def test_what_is_no_task_or_no_fit_is_refused() -> None:
    backbone, other = backbone_of("llama"), backbone_of("bert")
    model, bare = model_of(backbone), model_of(other)
    bank, routing = routing_of(backbone, num_heads=1, num_skills=2)
    artefact = artefact_of(backbone, [ScalePart(site="decoder.0.self.q", side="output")])
    assert "a bank is no task" in refusal(model, backbone, bank).message
    assert "the routing's bank" in refusal(model, backbone, routing).message
    assert "for another backbone" in refusal(model, other, artefact).message
    assert "a BertModel has no module" in refusal(bare, backbone, artefact).message
    assert "training mode" in refusal(model.train(), backbone, artefact).message


def test_tensors_take_the_dtype_of_the_model() -> None:
    backbone = backbone_of("llama")
    model = model_of(backbone).to(torch.bfloat16)
    artefact = artefact_of(backbone, [LowRankPart(site="decoder.0.self.q", rank=2, scale=1.0)])
    with applied(model, backbone, artefact) as adapted:
        assert answer(adapted, **batch_of(backbone)).dtype == torch.bfloat16
