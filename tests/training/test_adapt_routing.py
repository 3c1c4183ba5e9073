"""A new task's routing: its gate, and which sites share it, as the bank was trained or as told."""

from __future__ import annotations

import pytest
import torch
from published_kit import Published
from test_adapt import CONFIG
from training_kit import tiny_recipe

from adapters_store.artefact import Artefact, build_artefact, load_tensors
from adapters_store.backbone import Backbone
from adapters_store.errors import UsageError
from training.adapt import AdaptConfig, Teacher
from training.evaluation import artefact_accuracy
from training.export import export_backbone
from training.methods.routing import GATES, bin_of
from training.publish import run_artefacts
from training.recipe import TasksSection
from training.restore import read_bank, read_logits
from training.run import Run
from training.sources import suite_task
from training.starts import trained_granularity
from training.task import Task


@pytest.fixture(scope="module")
def new_task() -> Task:
    return suite_task("phrase-kebab", TasksSection(num_train=8, num_dev=2, num_test=2))


@pytest.fixture(scope="module")
def by_layer(tmp_path_factory: pytest.TempPathFactory) -> tuple[Backbone, Artefact, Artefact]:
    """A backbone, a bank whose routing was learnt layer by layer, and a seen task's routing."""
    folder = tmp_path_factory.mktemp("layer")
    recipe = tiny_recipe(steps=2)
    method = recipe.method.model_copy(update={"granularity": "layer"})
    run = Run.build(recipe.model_copy(update={"method": method}))
    run.train(folder)
    backbone = export_backbone(run.model, run.tokenizer, folder / "model", dtype=torch.float32)
    bank, tasks = run_artefacts(run, folder, backbone)
    assert bank is not None
    return backbone, bank, tasks["kv-city"]


@pytest.mark.parametrize("mode", ["z", "full"])
@pytest.mark.parametrize(
    ("asked", "granularity", "num_routers"),
    [(None, "layer", 3), ("stack", "stack", 2), ("global", "global", 1), ("site", "site", None)],
)
def test_sites_share_routing_as_in_the_banks_training_or_as_told(
    by_layer, new_task: Task, mode, asked, granularity, num_routers
) -> None:
    backbone, bank, _ = by_layer
    config = AdaptConfig(**{**vars(CONFIG), "mode": mode, "granularity": asked})
    taught = Teacher.open(backbone.folder).teach(new_task, config, bank)
    factors = read_bank(bank)
    routing = (num_routers or len(factors)) * 4 * 3
    skills = 0 if mode == "z" else sum(a.numel() + b.numel() for a, b, _ in factors.values())
    assert taught.metrics["num_trained"] == routing + skills
    if mode == "full":
        return
    bins: dict[str, torch.Tensor] = {}
    for site, logits in zip(factors, read_logits(taught.artefact, bank), strict=True):
        first = bins.setdefault(bin_of(backbone.sites[site], granularity), logits)
        assert torch.equal(logits, first)
    assert len(bins) == (num_routers or len(factors))
    score = artefact_accuracy(backbone.folder, taught.artefact, bank, new_task.test)
    assert score == taught.metrics["test"]


def test_a_start_from_a_seen_task_is_the_mean_over_the_sites_of_a_router(
    by_layer, new_task: Task
) -> None:
    backbone, bank, seen = by_layer
    still = AdaptConfig(init="nearest", steps=1, rows_per_step=4, router_learning_rate=1e-9)
    for granularity in (None, "stack"):
        config = AdaptConfig(**{**vars(still), "granularity": granularity})
        taught = Teacher.open(backbone.folder).teach(new_task, config, bank, [seen])
        found, expected = read_logits(taught.artefact, bank), read_logits(seen, bank)
        if granularity == "stack":
            stacks = [backbone.sites[site].stack for site in read_bank(bank)]
            for stack in set(stacks):
                own = [index for index, name in enumerate(stacks) if name == stack]
                expected[own] = expected[own].mean(0)
        torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)


@pytest.mark.parametrize("gate", list(GATES))
def test_every_gate_routes_a_new_task(published: Published, new_task: Task, gate: str) -> None:
    teacher, bank = Teacher.open(published.folder / "backbone"), published.artefact("bank")
    config = AdaptConfig(**{**vars(CONFIG), "gate": gate})
    taught = teacher.teach(new_task, config, bank, [published.artefact("kv-city")])
    weights = load_tensors(taught.artefact)["routing/weights"]
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    logits = load_tensors(taught.artefact)["routing/logits"]
    if gate == "softmax":
        torch.testing.assert_close(weights, torch.softmax(logits, -1))
    score = artefact_accuracy(teacher.backbone.folder, taught.artefact, bank, new_task.test)
    assert score == taught.metrics["test"]


def test_choices_that_have_no_effect_are_refused(published: Published, new_task: Task) -> None:
    teacher, bank = Teacher.open(published.folder / "backbone"), published.artefact("bank")
    seen = [published.artefact("kv-city")]
    for options, message in (
        ({"mode": "mu", "gate": "softmax"}, "mode 'mu' learns no routing for gate"),
        ({"mode": "mu", "granularity": "layer"}, "mode 'mu' learns no routing for gate"),
        ({"gate": "softmax", "init": "nearest"}, "logits of the sigmoid gate, not of 'softmax'"),
        ({"gate": "sigmoi"}, "Did you mean 'sigmoid'"),
    ):
        with pytest.raises(UsageError, match=message):
            teacher.teach(new_task, AdaptConfig(**options), bank, seen)


@pytest.mark.parametrize("method", ["mhr", {"granularity": "room"}, {}, None])
def test_a_bank_that_states_no_granularity_is_routed_by_site(
    published: Published, method: object
) -> None:
    bank = published.artefact("bank")
    told = build_artefact(
        kind="bank",
        backbone=published.backbone,
        parts=bank.manifest.parts,
        tensors=load_tensors(bank),
        provenance={"method": method},
    )
    assert trained_granularity(told) == "site"
