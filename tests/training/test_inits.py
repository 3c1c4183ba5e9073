"""Starts near seen tasks: each picks the neighbour that its own measure says is nearest."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import cosine_similarity

from adapters_store.errors import UsageError
from training.adapt import AdaptConfig, Teacher
from training.compile import bank_sites
from training.inits import NUM_SCORED, choose_routing
from training.injection import eject
from training.model import AdaptedModel
from training.restore import read_logits
from training.starts import start


@pytest.fixture
def newcomer(published):
    """A model at the uniform mix, with the objective, the bank and the seen routings."""
    teacher, bank = Teacher.open(published.folder / "backbone"), published.artefact("bank")
    torch.manual_seed(0)
    methods = start(teacher.backbone, "z", bank, (), 1)
    sites = [teacher.backbone.sites[name] for name in methods]
    model = AdaptedModel(teacher.model, sites, methods)
    routings = [published.artefact(task.name) for task in published.run.tasks]
    objective = teacher.objective(published.run.tasks[0], AdaptConfig())
    yield model, objective, bank, routings
    eject(teacher.model, model.sites)


def logits_of(model) -> torch.Tensor:
    return torch.stack([method.logits[0].detach() for method in bank_sites(model).values()])


def test_the_gradient_start_follows_one_descent_at_the_uniform_mix(newcomer, published) -> None:
    model, objective, bank, routings = newcomer
    task = published.run.tasks[1]
    batch = objective.collate([(0, example) for example in task.train[:NUM_SCORED]])
    objective.loss(model, batch).backward()
    descent = -torch.stack([m.logits.grad[0] for m in bank_sites(model).values()]).flatten()
    model.zero_grad()
    seen = torch.stack([read_logits(routing, bank) for routing in routings])
    scores = cosine_similarity((seen - seen.mean(0)).flatten(1), descent[None], dim=1)
    choose_routing(model, objective, task, "gradient", bank, routings)
    torch.testing.assert_close(logits_of(model), seen[scores.argmax()])
    assert all(method.logits.grad is None for method in bank_sites(model).values())


@pytest.mark.parametrize("init", ["blend", "gradient"])
def test_a_gate_that_draws_numbers_draws_none_while_neighbours_are_compared(
    published, init: str
) -> None:
    teacher, bank = Teacher.open(published.folder / "backbone"), published.artefact("bank")
    routings = [published.artefact(task.name) for task in published.run.tasks]
    found = []
    for gate in ("sigmoid", "relaxed_bernoulli"):
        torch.manual_seed(0)
        methods = start(teacher.backbone, "z", bank, (), 1, gate=gate)
        sites = [teacher.backbone.sites[name] for name in methods]
        model, task = AdaptedModel(teacher.model, sites, methods), published.run.tasks[0]
        choose_routing(model, teacher.objective(task, AdaptConfig()), task, init, bank, routings)
        found.append(logits_of(model))
        eject(teacher.model, model.sites)
    torch.testing.assert_close(*found)


def test_the_embedding_start_finds_the_task_with_the_same_kind_of_input(
    newcomer, published
) -> None:
    model, objective, bank, routings = newcomer
    for index, task in enumerate(published.run.tasks):
        for method in bank_sites(model).values():
            method.logits.data.zero_()
        choose_routing(model, objective, task, "embedding", bank, routings)
        torch.testing.assert_close(logits_of(model), read_logits(routings[index], bank))


def test_an_embedding_start_without_examples_is_refused(newcomer, published) -> None:
    model, objective, bank, _ = newcomer
    teacher, task = Teacher.open(published.folder / "backbone"), published.run.tasks[0]
    config = AdaptConfig(steps=1, rows_per_step=4, init="uniform")
    blank = teacher.teach(task, config, bank).artefact
    about = blank.manifest.signature.model_copy(update={"examples": ()})
    silent = type(blank)(blank.manifest.model_copy(update={"signature": about}), blank.data)
    with pytest.raises(UsageError, match="needs neighbours with examples"):
        choose_routing(model, objective, task, "embedding", bank, [silent])


def test_an_unknown_start_names_the_nearest(newcomer, published) -> None:
    model, objective, bank, routings = newcomer
    with pytest.raises(UsageError, match="Did you mean 'gradient'"):
        choose_routing(model, objective, published.run.tasks[0], "gradiant", bank, routings)
