"""Our methods against PEFT: the same weights give the same hidden states and logits."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, PolyConfig, TaskType, get_peft_model
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    T5Config,
    T5ForConditionalGeneration,
)

from adapters_store.families import load_family
from training.injection import select_sites
from training.methods import MethodConfig
from training.methods.base import BankMethod
from training.model import AdaptedModel

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

NUM_TASKS, NUM_SKILLS, RANK = 3, 4, 2
PATTERNS = {"t5": ("self.q", "self.v", "cross.q", "cross.v"), "llama": ("self.q", "self.v")}
TARGETS = {"t5": ["q", "v"], "llama": ["q_proj", "v_proj"]}
TASK_TYPES = {"t5": TaskType.SEQ_2_SEQ_LM, "llama": TaskType.CAUSAL_LM}


def tiny(name: str) -> PreTrainedModel:
    """A tiny random T5 or Llama; the Llama has fewer key and value heads than query heads."""
    torch.manual_seed(0)
    if name == "llama":
        llama = LlamaConfig(
            vocab_size=50,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            pad_token_id=0,
        )
        return LlamaForCausalLM(llama).eval()
    config = T5Config(
        vocab_size=50,
        d_model=16,
        d_kv=4,
        d_ff=24,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
    )
    return T5ForConditionalGeneration(config).eval()


def inputs(name: str) -> dict[str, torch.Tensor]:
    """A small mixed batch."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(2, 50, (NUM_TASKS, 7), generator=generator)
    if name == "llama":
        return {"input_ids": ids}
    labels = torch.randint(2, 50, (NUM_TASKS, 5), generator=generator)
    return {"input_ids": ids, "labels": labels}


def adapted(name: str, backbone: PreTrainedModel, config: MethodConfig) -> AdaptedModel:
    """Our model over a copy of the backbone."""
    family = load_family(name)
    sites = select_sites(family.sites(backbone.config.to_dict()), PATTERNS[name])
    return AdaptedModel.build(copy.deepcopy(backbone), sites, config).eval()


def in_state(state: dict[str, torch.Tensor], module_path: str, leaf: str) -> torch.Tensor:
    """The one tensor of PEFT's state whose name ends so."""
    (found,) = [one for key, one in state.items() if key.endswith(f".{module_path}.{leaf}")]
    return found


@pytest.mark.parametrize("num_heads", [1, 2, 4])
@pytest.mark.parametrize("name", ["t5", "llama"])
def test_poly_and_mhr_equal_peft_poly(name: str, num_heads: int) -> None:
    backbone = tiny(name)
    config = PolyConfig(
        task_type=TASK_TYPES[name],
        r=RANK,
        n_tasks=NUM_TASKS,
        n_skills=NUM_SKILLS,
        n_splits=num_heads,
        target_modules=TARGETS[name],
    )
    theirs = get_peft_model(copy.deepcopy(backbone), config).eval()
    for key, parameter in theirs.named_parameters():
        if "poly_" in key:
            torch.nn.init.normal_(parameter)
    state = theirs.state_dict()
    ours = adapted(
        name,
        backbone,
        MethodConfig(
            "mhr",
            rank=RANK,
            alpha=1.0,
            num_skills=NUM_SKILLS,
            num_heads=num_heads,
            num_tasks=NUM_TASKS,
        ),
    )
    for method in ours.site_methods().values():
        path = method.site.module_path
        assert isinstance(method, BankMethod)
        logits = in_state(state, path, "poly_router.default.module_logits")
        with torch.no_grad():
            method.a.copy_(in_state(state, path, "poly_lora_A.default"))
            method.b.copy_(in_state(state, path, "poly_lora_B.default"))
            method.logits.copy_(logits.view(NUM_TASKS, num_heads, NUM_SKILLS))
    tasks = torch.tensor([2, 0, 1])
    with torch.no_grad():
        expected = theirs(**inputs(name), task_ids=tasks).logits
        found = ours(tasks, **inputs(name)).logits
        bare = backbone(**inputs(name)).logits
    assert (expected - bare).abs().max() > 1e-2
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["t5", "llama"])
def test_lora_equals_peft_lora(name: str) -> None:
    backbone = tiny(name)
    config = LoraConfig(
        task_type=TASK_TYPES[name], r=RANK, lora_alpha=3, target_modules=TARGETS[name]
    )
    theirs = get_peft_model(copy.deepcopy(backbone), config).eval()
    for key, parameter in theirs.named_parameters():
        if "lora_" in key:
            torch.nn.init.normal_(parameter, std=0.3)
    state = theirs.state_dict()
    ours = adapted(name, backbone, MethodConfig("lora", rank=RANK, alpha=3.0))
    for method in ours.site_methods().values():
        path = method.site.module_path
        with torch.no_grad():
            method.get_parameter("a").copy_(in_state(state, path, "lora_A.default.weight").T[None])
            method.get_parameter("b").copy_(in_state(state, path, "lora_B.default.weight").T[None])
    with torch.no_grad():
        expected = theirs(**inputs(name)).logits
        found = ours(torch.zeros(NUM_TASKS, dtype=torch.long), **inputs(name)).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
