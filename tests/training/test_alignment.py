"""Gradient alignment against gradients taken task by task, and its limits."""

from __future__ import annotations

import pytest
import torch
from training_kit import SCRATCH
from transformers import AutoConfig, AutoModelForSeq2SeqLM, ByT5Tokenizer

from adapters_store.errors import UsageError
from training.alignment import gradient_alignment
from training.backbones import sites_of
from training.methods import MethodConfig
from training.model import AdaptedModel
from training.objectives.text2text import Text2Text
from training.suite.task import Example

ROWS = [[(0, Example("abc", "cba")), (0, Example("xy", "yx"))], [(1, Example("abc", "ABC"))]]


def adapted(name: str, **options) -> AdaptedModel:
    torch.manual_seed(0)
    settings = dict(SCRATCH)
    config = AutoConfig.for_model(settings.pop("model_type"), **settings)
    backbone = AutoModelForSeq2SeqLM.from_config(config)
    method = MethodConfig(name, rank=2, num_tasks=2, num_skills=3, num_heads=2, **options)
    model = AdaptedModel.build(backbone, sites_of(backbone), method)
    with torch.no_grad():
        for site in model.site_methods().values():
            for parameter in site.parameters():
                parameter.normal_(0, 0.3)
    return model.eval()


@pytest.fixture(scope="module")
def objective() -> Text2Text:
    return Text2Text(ByT5Tokenizer(extra_ids=0))


def shared_gradient(model, objective, rows) -> torch.Tensor:
    model.zero_grad()
    objective.loss(model, objective.collate(rows)).backward()
    kept = [p for n, p in model.named_parameters() if n.endswith((".a", ".b"))]
    return torch.cat([p.grad.flatten() for p in kept])


@pytest.mark.parametrize("name", ["lora", "poly", "mhr"])
def test_it_is_the_cosine_of_the_tasks_own_gradients(name: str, objective) -> None:
    model = adapted(name)
    first, second = (shared_gradient(model, objective, rows) for rows in ROWS)
    model.zero_grad()
    found = gradient_alignment(model, objective, ROWS)
    expected = float(torch.cosine_similarity(first, second, dim=0))
    assert found.shared == pytest.approx(expected, abs=1e-5)
    assert found.pairs[0, 1] == pytest.approx(expected, abs=1e-5)
    assert all(p.grad is None for p in model.parameters())


def test_shared_lora_has_one_alignment_and_a_bank_two(objective) -> None:
    lora = gradient_alignment(adapted("lora"), objective, ROWS)
    assert lora.shared == pytest.approx(lora.composed, abs=1e-6)
    assert torch.allclose(lora.pairs, lora.composed_pairs, atol=1e-6)
    mhr = gradient_alignment(adapted("mhr"), objective, ROWS)
    assert mhr.shared != pytest.approx(mhr.composed, abs=1e-4)
    assert mhr.composed == pytest.approx(float(mhr.composed_pairs[0, 1]), abs=1e-6)


def test_the_same_task_twice_is_aligned_perfectly(objective) -> None:
    found = gradient_alignment(adapted("mhr"), objective, [ROWS[0], ROWS[0]])
    assert (found.shared, found.composed) == pytest.approx((1.0, 1.0), abs=1e-5)


def test_one_task_or_a_method_without_factors_is_refused(objective) -> None:
    with pytest.raises(UsageError, match="compares tasks; found 1"):
        gradient_alignment(adapted("lora"), objective, ROWS[:1])
    with pytest.raises(UsageError, match="low-rank factors"):
        gradient_alignment(adapted("ia3"), objective, ROWS)
