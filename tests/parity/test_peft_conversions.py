"""Changes of form against PEFT: a Poly task as a LoRA, and a LoRA as a skill of a bank."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from peft import LoraConfig, PolyConfig, get_peft_model
from reference_kit import answer, backbone_of, batch_of, model_of

from adapters_store.formats.peft.poly import GATE
from adapters_store.skills import lora_as_skill, task_as_lora

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

TOLERANCE = 1e-6
TARGETS = {"t5": ["q", "v", "wi_0", "wo"], "llama": ["q_proj", "v_proj", "down_proj"]}
TASK_TYPES = {"t5": "SEQ_2_SEQ_LM", "llama": "CAUSAL_LM"}
NUM_TASKS, NUM_SKILLS, RANK, ALPHA = 2, 3, 2, 5.0
OPEN, CLOSED = 20.0, -1e4
CASES = [("t5", 1), ("t5", 4), ("llama", 1), ("llama", 4)]


def drawn(name: str, config: Any, marker: str) -> Any:
    """PEFT's model in double precision with random values wherever ``marker`` stands in a name."""
    torch.manual_seed(7)
    model = get_peft_model(copy.deepcopy(model_of(backbone_of(name))).double(), config)
    for parameter_name, parameter in model.named_parameters():
        if marker in parameter_name:
            torch.nn.init.normal_(parameter, std=0.3)
    return model.double().eval()


def poly_model(name: str, num_heads: int) -> Any:
    config = PolyConfig(
        task_type=TASK_TYPES[name],
        r=RANK,
        n_tasks=NUM_TASKS,
        n_skills=NUM_SKILLS,
        n_splits=num_heads,
        target_modules=TARGETS[name],
    )
    return drawn(name, config, "poly_")


def lora_model(name: str, alpha: float) -> Any:
    config = LoraConfig(
        task_type=TASK_TYPES[name], r=RANK, lora_alpha=alpha, target_modules=TARGETS[name]
    )
    return drawn(name, config, "lora_")


def adapted_paths(model: Any, leaf: str) -> list[str]:
    """Paths of the adapted modules in PEFT's state."""
    return [key.removesuffix(leaf) for key in model.state_dict() if key.endswith(leaf)]


@pytest.mark.parametrize(("name", "num_heads"), CASES)
def test_a_poly_task_as_a_lora_answers_as_poly(name: str, num_heads: int) -> None:
    poly, lora = poly_model(name, num_heads), lora_model(name, alpha=1)
    paths = adapted_paths(poly, "poly_lora_A.default")
    assert paths
    assert paths == adapted_paths(lora, "lora_A.default.weight")
    batch = batch_of(backbone_of(name), padding="right")
    state = poly.state_dict()
    for task in range(NUM_TASKS):
        target = lora.state_dict()
        for path in paths:
            logits = state[f"{path}poly_router.default.module_logits"][task]
            weights = GATE.weigh(logits.view(num_heads, NUM_SKILLS))
            a, b = task_as_lora(
                state[f"{path}poly_lora_A.default"], state[f"{path}poly_lora_B.default"], weights
            )
            target[f"{path}lora_A.default.weight"].copy_(a.T)
            target[f"{path}lora_B.default.weight"].copy_(b.T)
        expected = answer(poly, **batch, task_ids=torch.full((3,), task))
        torch.testing.assert_close(answer(lora, **batch), expected, atol=TOLERANCE, rtol=0)
    bare = answer(model_of(backbone_of(name)), **batch)
    assert (expected - bare).abs().max() > 1e-2


@pytest.mark.parametrize(("name", "num_heads"), CASES)
def test_a_lora_as_a_skill_answers_as_the_lora(name: str, num_heads: int) -> None:
    poly, lora = poly_model(name, num_heads), lora_model(name, alpha=ALPHA)
    batch = batch_of(backbone_of(name), padding="right")
    state, target = lora.state_dict(), poly.state_dict()
    skill = 1
    for path in adapted_paths(poly, "poly_lora_A.default"):
        a, b = lora_as_skill(
            state[f"{path}lora_A.default.weight"].T,
            state[f"{path}lora_B.default.weight"].T,
            num_heads,
            factor=ALPHA,
        )
        target[f"{path}poly_lora_A.default"][:, skill].copy_(a)
        target[f"{path}poly_lora_B.default"][:, skill].copy_(b)
        logits = target[f"{path}poly_router.default.module_logits"].view(
            NUM_TASKS, num_heads, NUM_SKILLS
        )
        logits.fill_(CLOSED)
        logits[..., skill] = OPEN
    expected = answer(lora, **batch)
    found = answer(poly, **batch, task_ids=torch.zeros(3, dtype=torch.long))
    torch.testing.assert_close(found, expected, atol=TOLERANCE, rtol=0)
    bare = answer(model_of(backbone_of(name)), **batch)
    assert (expected - bare).abs().max() > 1e-2
