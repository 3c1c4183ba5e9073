"""The reference against PEFT: methods that act on linear maps and norms."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import (
    IA3Config,
    LNTuningConfig,
    LoraConfig,
    PeftConfig,
    PolyConfig,
    get_peft_model,
)
from reference_kit import (
    answer,
    artefact_of,
    backbone_of,
    batch_of,
    model_of,
    signature_of,
)

from adapters_store.artefact import Artefact, build_artefact
from adapters_store.backbone import Backbone
from adapters_store.primitives import Part
from adapters_store.primitives.low_rank import LowRankPart
from adapters_store.primitives.mixture import BankPart
from adapters_store.primitives.override import OverridePart
from adapters_store.primitives.routing import RoutingPart
from adapters_store.primitives.scale import ScalePart
from training.reference import applied

pytestmark = [
    pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning"),
    pytest.mark.filterwarnings("ignore:Unsupported layer type:UserWarning"),
]

TASK_TYPES = {"t5": "SEQ_2_SEQ_LM", "bart": "SEQ_2_SEQ_LM", "bert": "FEATURE_EXTRACTION"}
MAPS = {
    "llama": ("q_proj", "v_proj", "o_proj", "gate_proj", "down_proj"),
    "gpt2": ("c_attn", "c_proj", "c_fc"),
    "t5": ("q", "v", "o", "wi_0", "wo"),
    "bart": ("q_proj", "v_proj", "out_proj", "fc1", "fc2"),
    "bert": ("query", "value", "dense"),
}
FEED_FORWARD = {
    "llama": ("down_proj",),
    "gpt2": ("mlp.c_proj",),
    "t5": ("wo",),
    "bart": ("fc2",),
    "bert": ("output.dense",),
}
NORMS = {
    "llama": ("input_layernorm", "post_attention_layernorm", "norm"),
    "gpt2": ("ln_1", "ln_2", "ln_f"),
    "t5": ("layer_norm", "final_layer_norm"),
    "bart": ("self_attn_layer_norm", "encoder_attn_layer_norm", "final_layer_norm"),
    "bert": ("LayerNorm",),
}


def theirs(backbone: Backbone, config: PeftConfig, marker: str) -> Any:
    """PEFT's model with random values in every parameter whose name holds ``marker``."""
    torch.manual_seed(5)
    model = get_peft_model(copy.deepcopy(model_of(backbone)), config).eval()
    drawn = [p for name, p in model.named_parameters() if marker in name]
    assert drawn
    for parameter in drawn:
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def check(peft_model: Any, backbone: Backbone, artefact: Artefact, **options: Any) -> None:
    """Equal logits for padded rows, and equal greedy tokens where the model writes."""
    model, bank = model_of(backbone), options.pop("bank", None)
    with applied(model, backbone, artefact, bank) as adapted:
        for padding in ("none", "left", "right"):
            batch = batch_of(backbone, padding=padding)
            expected = answer(peft_model, **batch, **options)
            torch.testing.assert_close(answer(adapted, **batch), expected, atol=1e-5, rtol=1e-5)
        if backbone.shapes.anatomy.can_generate:
            batch.pop("decoder_input_ids", None)
            ids = adapted.generate(**batch, max_new_tokens=6)
            assert torch.equal(
                ids, peft_model.generate(**batch, **options, max_new_tokens=6, do_sample=False)
            )
    assert (expected - answer(model, **batch_of(backbone, padding="right"))).abs().max() > 1e-2


def found_in(state: dict[str, torch.Tensor], path: str, leaf: str) -> torch.Tensor | None:
    names = [name for name in state if name.endswith(f".{path}.{leaf}")]
    assert len(names) <= 1
    return state[names[0]] if names else None


@pytest.mark.parametrize("name", MAPS)
def test_lora(name: str) -> None:
    backbone = backbone_of(name)
    config = LoraConfig(
        task_type=TASK_TYPES.get(name, "CAUSAL_LM"),
        r=4,
        lora_alpha=6,
        target_modules=list(MAPS[name]),
        fan_in_fan_out=name == "gpt2",
        exclude_modules=["pooler.dense"] if name == "bert" else None,
    )
    model = theirs(backbone, config, "lora_")
    parts: list[Part] = []
    tensors: dict[str, torch.Tensor] = {}
    for site in backbone.sites.values():
        a = found_in(model.state_dict(), site.module_path, "lora_A.default.weight")
        b = found_in(model.state_dict(), site.module_path, "lora_B.default.weight")
        if a is not None and b is not None:
            parts.append(LowRankPart(site=site.name, rank=4, scale=1.5))
            tensors |= {f"{site.name}/low_rank/a": a.T, f"{site.name}/low_rank/b": b.T}
    assert 2 * len(parts) == sum("lora_" in key for key in model.state_dict())
    check(model, backbone, artefact_of(backbone, parts, tensors))


@pytest.mark.parametrize("name", MAPS)
def test_ia3(name: str) -> None:
    backbone = backbone_of(name)
    config = IA3Config(
        task_type=TASK_TYPES.get(name, "CAUSAL_LM"),
        target_modules=[*MAPS[name], *FEED_FORWARD[name]],
        feedforward_modules=list(FEED_FORWARD[name]),
        fan_in_fan_out=name == "gpt2",
        exclude_modules=["pooler.dense"] if name == "bert" else None,
    )
    model = theirs(backbone, config, "ia3_l")
    parts: list[Part] = []
    tensors: dict[str, torch.Tensor] = {}
    for site in backbone.sites.values():
        v = found_in(model.state_dict(), site.module_path, "ia3_l.default")
        if v is not None:
            side = "input" if v.shape[0] == 1 else "output"
            parts.append(ScalePart.model_validate({"site": site.name, "side": side}))
            tensors[f"{site.name}/scale/{side}"] = v.flatten()
    sides = {part.side for part in parts if isinstance(part, ScalePart)}
    assert sides == {"input", "output"}
    assert len(parts) == sum("ia3_l" in key for key in model.state_dict())
    check(model, backbone, artefact_of(backbone, parts, tensors))


@pytest.mark.parametrize("name", MAPS)
def test_ln_tuning(name: str) -> None:
    backbone = backbone_of(name)
    config = LNTuningConfig(
        task_type=TASK_TYPES.get(name, "CAUSAL_LM"), target_modules=list(NORMS[name])
    )
    model = theirs(backbone, config, "ln_tuning_layers")
    parts: list[Part] = []
    tensors: dict[str, torch.Tensor] = {}
    for vector in backbone.shapes.anatomy.vectors:
        path, _, leaf = vector.parameter_path.rpartition(".")
        value = found_in(model.state_dict(), path, f"ln_tuning_layers.default.{leaf}")
        if value is not None:
            parts.append(OverridePart(vector=vector.name, operation="replace"))
            tensors[f"{vector.name}/override/value"] = value
    assert len(parts) == sum("ln_tuning_layers" in key for key in model.state_dict())
    check(model, backbone, artefact_of(backbone, parts, tensors))


@pytest.mark.parametrize(("name", "num_heads"), [("t5", 1), ("t5", 4), ("llama", 1), ("llama", 2)])
def test_poly(name: str, num_heads: int) -> None:
    backbone, num_skills, num_tasks = backbone_of(name), 3, 2
    config = PolyConfig(
        task_type=TASK_TYPES.get(name, "CAUSAL_LM"),
        r=2,
        n_tasks=num_tasks,
        n_skills=num_skills,
        n_splits=num_heads,
        target_modules=list(MAPS[name]),
    )
    model = theirs(backbone, config, "poly_")
    parts: list[BankPart] = []
    tensors: dict[str, torch.Tensor] = {}
    gates = []
    for site in backbone.sites.values():
        a = found_in(model.state_dict(), site.module_path, "poly_lora_A.default")
        b = found_in(model.state_dict(), site.module_path, "poly_lora_B.default")
        logits = found_in(model.state_dict(), site.module_path, "poly_router.default.module_logits")
        if a is None or b is None or logits is None:
            continue
        parts.append(
            BankPart(site=site.name, rank=2, num_skills=num_skills, num_heads=num_heads, scale=0.5)
        )
        tensors |= {f"{site.name}/mixture/a": a, f"{site.name}/mixture/b": b}
        gate = logits.view(num_tasks, num_heads, num_skills).sigmoid()
        gates.append(gate / gate.sum(-1, keepdim=True))
    bank = build_artefact(kind="bank", backbone=backbone, parts=parts, tensors=tensors)
    sites = tuple(part.site for part in parts)
    part = RoutingPart(sites=sites, num_skills=num_skills, num_heads=num_heads)
    for task in range(num_tasks):
        routing = build_artefact(
            kind="routing",
            backbone=backbone,
            parts=[part],
            tensors={"routing/weights": torch.stack([gate[task] for gate in gates])},
            signature=signature_of(backbone, [part]),
            bank=bank.digest,
        )
        check(model, backbone, routing, bank=bank, task_ids=torch.full((3,), task))
