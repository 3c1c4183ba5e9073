"""Our methods against PEFT: the same weights give the same hidden states and logits."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, PolyConfig, TaskType, get_peft_model
from transformers import T5Config, T5ForConditionalGeneration

from adapters_store.families import load_family
from training.injection import select_sites
from training.methods import MethodConfig
from training.methods.base import BankMethod
from training.model import AdaptedModel

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

NUM_TASKS, NUM_SKILLS, RANK = 3, 4, 2
PATTERNS = ("self.q", "self.v", "cross.q", "cross.v")


@pytest.fixture
def backbone() -> T5ForConditionalGeneration:
    """A tiny random T5."""
    torch.manual_seed(0)
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


def inputs() -> dict[str, torch.Tensor]:
    """A small mixed batch."""
    generator = torch.Generator().manual_seed(1)
    return {
        "input_ids": torch.randint(2, 50, (NUM_TASKS, 7), generator=generator),
        "labels": torch.randint(2, 50, (NUM_TASKS, 5), generator=generator),
    }


def adapted(backbone: T5ForConditionalGeneration, config: MethodConfig) -> AdaptedModel:
    """Our model over a copy of the backbone."""
    family = load_family("t5")
    sites = select_sites(family.sites(backbone.config.to_dict()), PATTERNS)
    return AdaptedModel.build(copy.deepcopy(backbone), sites, config).eval()


@pytest.mark.parametrize("num_heads", [1, 2, 4])
def test_poly_and_mhr_equal_peft_poly(backbone: T5ForConditionalGeneration, num_heads: int) -> None:
    config = PolyConfig(
        task_type=TaskType.SEQ_2_SEQ_LM,
        r=RANK,
        n_tasks=NUM_TASKS,
        n_skills=NUM_SKILLS,
        n_splits=num_heads,
        target_modules=["q", "v"],
    )
    theirs = get_peft_model(copy.deepcopy(backbone), config).eval()
    for name, parameter in theirs.named_parameters():
        if "poly_" in name:
            torch.nn.init.normal_(parameter)
    state = theirs.state_dict()
    ours = adapted(
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
        prefix = f"base_model.model.{method.site.module_path}"
        assert isinstance(method, BankMethod)
        logits = state[f"{prefix}.poly_router.default.module_logits"]
        with torch.no_grad():
            method.a.copy_(state[f"{prefix}.poly_lora_A.default"])
            method.b.copy_(state[f"{prefix}.poly_lora_B.default"])
            method.logits.copy_(logits.view(NUM_TASKS, num_heads, NUM_SKILLS))
    tasks = torch.tensor([2, 0, 1])
    with torch.no_grad():
        expected = theirs(**inputs(), task_ids=tasks).logits
        found = ours(tasks, **inputs()).logits
        bare = backbone(**inputs()).logits
    assert (expected - bare).abs().max() > 1e-2
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_lora_equals_peft_lora(backbone: T5ForConditionalGeneration) -> None:
    config = LoraConfig(
        task_type=TaskType.SEQ_2_SEQ_LM, r=RANK, lora_alpha=3, target_modules=["q", "v"]
    )
    theirs = get_peft_model(copy.deepcopy(backbone), config).eval()
    for name, parameter in theirs.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.3)
    state = theirs.state_dict()
    ours = adapted(backbone, MethodConfig("lora", rank=RANK, alpha=3.0))
    for method in ours.site_methods().values():
        prefix = f"base_model.model.{method.site.module_path}"
        with torch.no_grad():
            method.get_parameter("a").copy_(state[f"{prefix}.lora_A.default.weight"].T[None])
            method.get_parameter("b").copy_(state[f"{prefix}.lora_B.default.weight"].T[None])
    with torch.no_grad():
        expected = theirs(**inputs()).logits
        found = ours(torch.zeros(NUM_TASKS, dtype=torch.long), **inputs()).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
