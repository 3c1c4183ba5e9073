"""Shares of a batch add up to the batch: losses, gradients and draws, for every objective."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from test_decoders import scratch
from training_kit import SCRATCH, save_tiny_bert, tiny_recipe
from transformers import BertModel, BertTokenizer, ByT5Tokenizer

from adapters_store.errors import UnavailableError, UsageError
from training.backbones import load_model, sites_of
from training.cluster import _Tail
from training.methods import MethodConfig
from training.methods.routing import GATES, Router
from training.model import AdaptedModel
from training.objectives import OBJECTIVES
from training.objectives.base import Objective, Row
from training.recipe import BackboneSection
from training.run import Run
from training.suite import Example
from training.workers import Workers

LABELS = [["good", "bad"], ["nice", "fine", "very poor"]]
ROWS: list[Row] = [
    (0, Example("the food was good", "good", choices=("good", "bad"))),
    (1, Example("nice", "very poor", choices=("nice", "fine", "very poor"))),
    (0, Example("the room", "bad", choices=("good", "bad"))),
    (0, Example("awful", "bad", choices=("bad",))),
    (1, Example("the food was very fine", "fine", choices=("nice", "fine", "very poor"))),
]


def build(name: str, folder: Path) -> tuple[AdaptedModel, Objective]:
    """The objective of that name on a tiny model that it fits."""
    torch.manual_seed(0)
    if name == "classification":
        backbone: Any = BertModel.from_pretrained(save_tiny_bert(folder))
        tokenizer: Any = BertTokenizer.from_pretrained(folder)
    else:
        is_decoder = name.startswith("continuation")
        settings = scratch("llama") if is_decoder else dict(SCRATCH)
        backbone = load_model(BackboneSection(scratch=settings), "text2text")
        tokenizer = ByT5Tokenizer(extra_ids=0)
    module, _, attribute = OBJECTIVES[name].partition(":")
    objective = getattr(__import__(module, fromlist=[attribute]), attribute)
    model = AdaptedModel.build(
        backbone,
        sites_of(backbone),
        MethodConfig("mhr", rank=2, num_skills=3, num_heads=2, num_tasks=2),
        num_labels=[2, 3] if name == "classification" else (),
    )
    with torch.no_grad():
        for method in model.site_methods().values():
            method.b.normal_(0, 0.1)
    return model.eval(), objective(tokenizer, labels=LABELS)


@pytest.mark.parametrize("name", list(OBJECTIVES))
def test_uneven_shares_add_up_to_the_whole_batch(name: str, tmp_path: Path) -> None:
    model, objective = build(name, tmp_path)
    trained = [p for p in model.parameters() if p.requires_grad]

    def gradients() -> list[torch.Tensor]:
        found = [p.grad.clone() if p.grad is not None else torch.zeros_like(p) for p in trained]
        model.zero_grad()
        return found

    whole = objective.collate(ROWS)
    totals = objective.counts(whole)
    assert totals.shape == (objective.num_means,)
    loss = objective.loss(model, whole)
    assert loss.dtype == torch.float32
    loss.backward()
    expected = gradients()
    found = 0.0
    for rows in (ROWS[:1], ROWS[3:4], [*ROWS[1:3], ROWS[4]]):
        share = objective.loss(model, objective.collate(rows), totals)
        share.backward()
        found += float(share.detach())
    assert found == pytest.approx(float(loss.detach()), rel=1e-6)
    scale = max(float(gradient.abs().max()) for gradient in expected)
    for one, other in zip(gradients(), expected):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6 * scale)


def test_the_mean_of_the_shares_means_is_another_loss(tmp_path: Path) -> None:
    model, objective = build("text2text", tmp_path)

    @torch.no_grad()
    def mean(rows: list[Row]) -> float:
        return float(objective.loss(model, objective.collate(rows)))

    halves = [mean(ROWS[:1]), mean(ROWS[1:])]
    assert sum(halves) / 2 != pytest.approx(mean(ROWS), rel=1e-4)


@pytest.mark.parametrize("gate", list(GATES))
def test_a_gates_draws_for_a_task_do_not_depend_on_its_batch(gate: str) -> None:
    router = Router(5, 2, 4, gate).train()

    def weights(tasks: list[int]) -> torch.Tensor:
        torch.manual_seed(7)
        return router(torch.tensor(tasks))

    torch.testing.assert_close(weights([3]), weights([0, 3, 4])[1:2], rtol=0, atol=0)


@pytest.mark.parametrize("gate", ["sigmoid", "relaxed_bernoulli"])
def test_accumulated_rows_train_as_the_whole_batch_does(gate: str, tmp_path: Path) -> None:
    whole = tiny_recipe(steps=3)
    backbone = whole.backbone.model_copy(update={"is_trained": False})
    method = whole.method.model_copy(update={"gate": gate})
    whole = whole.model_copy(update={"backbone": backbone, "method": method})
    train = whole.train.model_copy(update={"rows_per_device": 4})
    parts = whole.model_copy(update={"train": train})
    losses: list[list[float]] = []
    weights = []
    for recipe in (whole, parts):
        run, seen = Run.build(recipe), list[float]()
        run.train(tmp_path / str(len(losses)), lambda record, to=seen: to.append(record["loss"]))
        losses.append(seen)
        weights.append(dict(run.model.named_parameters()))
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    for name, expected in weights[0].items():
        torch.testing.assert_close(weights[1][name], expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_trains_on_a_cpu_and_float16_is_refused(tmp_path: Path) -> None:
    losses = {}
    for precision in ("no", "bf16"):
        run = Run.build(tiny_recipe(steps=3, mixed_precision=precision))
        losses[precision] = run.train(tmp_path / precision).loss
        assert next(run.model.parameters()).dtype == torch.float32
    assert losses["bf16"] != losses["no"]
    assert losses["bf16"] == pytest.approx(losses["no"], rel=2e-2)
    with pytest.raises(UsageError, match="fp16 needs a GPU"):
        Run.build(tiny_recipe(mixed_precision="fp16")).train(tmp_path / "fp16")


def test_a_launcher_whose_workers_do_not_meet_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.workers._has_accelerator", lambda: True)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UnavailableError, match="states 2 workers; found 1"):
        Workers()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("ACCELERATE_MIXED_PRECISION", "bf16", "the recipe's train.mixed_precision is no"),
        ("ACCELERATE_USE_FSDP", "true", "every worker here holds all weights"),
    ],
)
def test_what_a_launcher_asks_against_the_recipe_is_refused(
    name: str, value: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=message):
        Workers()


def test_a_log_is_followed_across_a_new_beginning(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"

    def write(steps: Iterable[int], end: str = "") -> None:
        log.write_text("".join(f'{{"step": {step}, "loss": 1}}\n' for step in steps) + end)

    tail = _Tail(log, 2)
    assert list(tail.added()) == []
    write(range(1, 5), end='{"step":')
    assert [record["step"] for record in tail.added()] == [3, 4]
    assert list(tail.added()) == []
    write(range(1, 4))
    assert list(tail.added()) == []
    write([*range(1, 4), 4, 5])
    assert [record["step"] for record in tail.added()] == [5]
