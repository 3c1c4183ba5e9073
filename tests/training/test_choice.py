"""Choice by encoder-decoders and decoders alone: its three losses written out, and ranking."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from test_decoders import scratch
from training_kit import SCRATCH
from transformers import ByT5Tokenizer

from adapters_store.errors import TrainingError, UsageError
from training.backbones import load_model, sites_of
from training.evaluation import accuracy
from training.methods import MethodConfig
from training.model import AdaptedModel
from training.objectives import build_objective
from training.objectives.ranking import Ranking
from training.recipe import BackboneSection
from training.suite.task import Example

ROWS = [
    (0, Example("is it so?", "yes", choices=("no", "yes"))),
    (1, Example("which one is it?", "third", choices=("first", "second one", "third"))),
]


@pytest.fixture(scope="module", params=["t5", "llama", "gpt2"])
def model(request: pytest.FixtureRequest) -> AdaptedModel:
    torch.manual_seed(0)
    settings = dict(SCRATCH) if request.param == "t5" else scratch(request.param)
    backbone = load_model(BackboneSection(scratch=settings), "choice")
    adapted = AdaptedModel.build(
        backbone,
        sites_of(backbone),
        MethodConfig("mhr", rank=2, num_skills=3, num_heads=2, num_tasks=2),
    )
    with torch.no_grad():
        for method in adapted.site_methods().values():
            method.b.normal_(0, 0.5)
            method.router.logits.normal_()
    return adapted.eval()


@pytest.fixture(scope="module")
def objective(model: AdaptedModel) -> Ranking:
    built = build_objective(
        "choice", model.model, ByT5Tokenizer(extra_ids=0), labels=[["no", "yes"], []]
    )
    assert isinstance(built, Ranking)
    return built


def token_log_p(model, objective, task: int, text: str, choice: str) -> list[float]:
    """The log-probabilities of one choice's tokens, by a forward of its own without padding."""
    tokenizer = objective.tokenizer
    source, target = tokenizer(text)["input_ids"], tokenizer(choice)["input_ids"]
    if model.model.config.is_encoder_decoder:
        inputs = {"input_ids": torch.tensor([source]), "labels": torch.tensor([target])}
        first = 0
    else:
        inputs = {"input_ids": torch.tensor([[*source, *target]])}
        first = len(source) - 1
    with torch.no_grad():
        logits = model(torch.tensor([task]), **inputs).logits[0].float()
    log_p = torch.log_softmax(logits, -1)
    return [float(log_p[first + t, token]) for t, token in enumerate(target)]


def test_the_loss_is_likelihood_plus_unlikelihood_plus_normalised_choice(model, objective) -> None:
    right, wrong, ranked = [], [], []
    for task, example in ROWS:
        means = {}
        for choice in example.choices:
            log_p = token_log_p(model, objective, task, example.input, choice)
            means[choice] = sum(log_p) / len(log_p)
            (right if choice == example.output else wrong).extend(log_p)
        total = sum(math.exp(value) for value in means.values())
        ranked.append(-math.log(math.exp(means[example.output]) / total))
    expected = -sum(right) / len(right)
    expected += -sum(math.log(1 - math.exp(value)) for value in wrong) / len(wrong)
    expected += sum(ranked) / len(ranked)
    with torch.no_grad():
        found = float(objective.loss(model, objective.collate(ROWS)))
    assert found == pytest.approx(expected, abs=1e-4)


def test_prediction_is_the_choice_of_highest_mean_log_probability(model, objective) -> None:
    for task, example in ROWS:
        means = {
            choice: sum(values) / len(values)
            for choice in example.choices
            if (values := token_log_p(model, objective, task, example.input, choice))
        }
        (found,) = objective.predict(model, task, [example])
        assert found == max(means, key=lambda choice: means[choice])


def test_a_row_without_choices_takes_the_labels_of_its_task(model, objective) -> None:
    (found,) = objective.predict(model, 0, [Example("is it?", "yes")])
    assert found in ("no", "yes")


def test_an_answer_outside_the_choices_is_refused(model, objective) -> None:
    with pytest.raises(TrainingError, match=r"'maybe' is not one of the choices \['no', 'yes'\]"):
        objective.collate([(0, Example("is it?", "maybe"))])


def test_gradients_reach_factors_and_routing(model, objective) -> None:
    model.zero_grad()
    objective.loss(model, objective.collate(ROWS)).backward()
    method = next(iter(model.site_methods().values()))
    assert method.router.logits.grad.abs().sum() > 0
    assert method.b.grad.abs().sum() > 0


def test_longer_choices_beside_it_do_not_change_a_rows_scores(model, objective) -> None:
    together = objective.predict(model, 1, [example for _, example in ROWS])
    alone = [objective.predict(model, 1, [example])[0] for _, example in ROWS]
    assert together == alone
    crowded = (*ROWS[0][1].choices, "a choice of many more tokens than the others have")
    padded = objective.collate([ROWS[0], (0, replace(ROWS[0][1], choices=crowded))])
    padded = {name: value[:1] for name, value in padded.items()}
    with torch.no_grad():
        expected = objective.loss(model, objective.collate(ROWS[:1]))
        torch.testing.assert_close(objective.loss(model, padded), expected, atol=1e-4, rtol=0)


def test_a_score_of_nothing_is_refused(model, objective) -> None:
    with pytest.raises(UsageError, match="no examples to score"):
        accuracy(model, objective, 0, [])
