"""Gradient alignment against gradients taken task by task, and its limits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from training_kit import SCRATCH, SUITE_NAMES, tiny_recipe
from transformers import AutoConfig, AutoModelForSeq2SeqLM, ByT5Tokenizer

from adapters_store.errors import UsageError
from training.alignment import fixed_probe, gradient_alignment
from training.backbones import sites_of
from training.methods import MethodConfig
from training.model import AdaptedModel
from training.objectives.text2text import Text2Text
from training.report.page import write_report
from training.run import Run
from training.suite.task import Example
from training.task import Task

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


def test_scales_are_compared_as_factors_are(objective) -> None:
    ia3 = gradient_alignment(adapted("ia3"), objective, ROWS)
    assert ia3.shared == pytest.approx(ia3.composed, abs=1e-6)
    bank = gradient_alignment(adapted("mhr_ia3"), objective, ROWS)
    assert bank.shared != pytest.approx(bank.composed, abs=1e-4)


def test_one_task_or_a_method_that_shares_nothing_is_refused(objective) -> None:
    with pytest.raises(UsageError, match="compares tasks; found 1"):
        gradient_alignment(adapted("lora"), objective, ROWS[:1])
    with pytest.raises(UsageError, match="the method has none"):
        gradient_alignment(adapted("lora", is_private=True), objective, ROWS)


def test_a_probe_is_spread_over_the_tasks_and_always_the_same() -> None:
    tasks = [Task(f"t{t}", train=[Example(f"{t}/{i}", "") for i in range(3)]) for t in range(10)]
    probe = fixed_probe(tasks, 4, 2)
    assert [[(t, e.input) for t, e in rows] for rows in probe] == [
        [(t, f"{t}/0"), (t, f"{t}/1")] for t in (0, 2, 5, 7)
    ]
    assert len(fixed_probe(tasks[:3], 16, 8)) == 3
    assert fixed_probe(tasks, 4, 2) == probe


def test_a_run_logs_its_alignment_and_reports_it(tmp_path: Path) -> None:
    recipe = tiny_recipe(steps=4, alignment_every=2, alignment_tasks=2, alignment_rows=2)
    run, plain = Run.build(recipe), Run.build(tiny_recipe(steps=4))
    run.train(tmp_path / "run")
    plain.train(tmp_path / "plain")
    for name, parameter in plain.model.named_parameters():
        assert torch.equal(parameter, dict(run.model.named_parameters())[name]), name
    records = [
        json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()
    ]
    logged = {r["step"]: r["alignment"] for r in records if "alignment" in r}
    assert list(logged) == [2, 4]
    last, again = logged[4], run.alignment()
    assert last == again
    assert last["tasks"] == [SUITE_NAMES[0], SUITE_NAMES[1]]
    assert last["shared"] == pytest.approx(last["pairs"][0][1], abs=1e-3)
    text = write_report(tmp_path / "run").read_text(encoding="utf-8")
    assert "Gradient alignment between tasks by step" in text
    assert f"{SUITE_NAMES[0]}, 2: {last['pairs'][0][1]:.3f}" in text
    assert "Gradient alignment" not in write_report(tmp_path / "plain").read_text(encoding="utf-8")
    for method, tasks, message in (("lora", 1, "the run has one"), ("private", 2, "has none")):
        told = {"name": "lora", "is_private": method == "private"}
        chosen = recipe.model_copy(update={"method": recipe.method.model_copy(update=told)})
        with pytest.raises(UsageError, match=message):
            Run.build(chosen, run.tasks[:tasks])
