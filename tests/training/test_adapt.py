"""Adaptation: every mode from a bank to an artefact, and the backbone left as it was."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from published_kit import Published
from training_kit import opinion_task, save_tiny_bert

from adapters_store.artefact import build_artefact, load_tensors
from adapters_store.errors import IncompatibleError, UsageError
from adapters_store.ledger.lineage import lineage_of
from training import backbones
from training.adapt import AdaptConfig, Teacher
from training.evaluation import artefact_accuracy
from training.inits import NUM_SCORED
from training.library import library_bank
from training.recipe import BackboneSection, TasksSection
from training.restore import read_bank, read_logits
from training.sources import suite_task
from training.starts import start
from training.task import Task

CONFIG = AdaptConfig(steps=3, rows_per_step=4, max_input_tokens=128, rank=2)


@pytest.fixture
def new_task() -> Task:
    """A held-out suite task with a few examples."""
    return suite_task("phrase-kebab", TasksSection(num_train=8, num_dev=2, num_test=2))


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of every tensor by name."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("mode", ["z", "mu", "full", "lora"])
def test_every_mode_learns_publishes_and_leaves_the_backbone_alone(
    published: Published, new_task: Task, mode: str
) -> None:
    teacher = Teacher.open(published.folder / "backbone")
    before = weights(teacher.model)
    bank = None if mode == "lora" else published.artefact("bank")
    config = AdaptConfig(**{**vars(CONFIG), "mode": mode})
    taught = teacher.teach(new_task, config, bank)
    after = weights(teacher.model)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    manifest = taught.artefact.manifest
    assert manifest.kind == ("routing" if mode == "z" else "adapter")
    assert manifest.provenance["method"] == mode
    stated = lineage_of(manifest.provenance)
    assert stated is not None
    assert stated.parents == ((bank.digest,) if bank else ())
    assert stated.seed == config.seed
    assert "torch" in stated.versions
    version = published.store.publish(f"other/{mode}", taught.artefact)
    assert version.bank == (bank.digest if bank and mode == "z" else None)
    score = artefact_accuracy(teacher.backbone.folder, taught.artefact, bank, new_task.test)
    assert score == taught.metrics["test"]


def test_z_trains_logits_alone_and_counts_them(published: Published, new_task: Task) -> None:
    teacher = Teacher.open(published.folder / "backbone")
    bank = published.artefact("bank")
    factors = read_bank(bank)
    methods = start(teacher.backbone, "z", bank, ("all",), 8)
    trained = {
        (site, name)
        for site, method in methods.items()
        for name, p in method.named_parameters()
        if p.requires_grad
    }
    assert trained == {(site, "router.logits") for site in factors}
    taught = teacher.teach(new_task, CONFIG, bank)
    assert taught.metrics["num_trained"] == len(factors) * 4 * 3
    logits = read_logits(taught.artefact, bank)
    assert logits.shape == (len(factors), 4, 3)
    assert logits.abs().max() > 0.05


def test_mu_starts_at_the_uniform_average_of_the_bank(published: Published) -> None:
    bank = published.artefact("bank")
    factors = read_bank(bank)
    methods = start(published.backbone, "mu", bank, ("all",), 8)
    for site, (a_HKDr, b_HKrO, _) in factors.items():
        a, b, scale = methods[site].factors(torch.tensor([0]))
        rank = a_HKDr.shape[-1]
        expected_b = torch.cat(list(b_HKrO.mean(1)), dim=-1)
        torch.testing.assert_close(a[0], a_HKDr.mean(1).reshape(-1, rank), atol=1e-7, rtol=0)
        torch.testing.assert_close(b[0], expected_b, atol=5e-7, rtol=0)
        assert scale == 1.0


def test_lora_may_tune_a_published_adapter_further(published: Published, new_task: Task) -> None:
    teacher = Teacher.open(published.folder / "backbone")
    config = AdaptConfig(**{**vars(CONFIG), "mode": "lora"})
    first = teacher.teach(new_task, config).artefact
    still = AdaptConfig(mode="lora", steps=1, rows_per_step=4, learning_rate=1e-12)
    second = teacher.teach(new_task, still, first).artefact
    before, after = load_tensors(first), load_tensors(second)
    assert before.keys() == after.keys()
    for name in before:
        torch.testing.assert_close(after[name], before[name], atol=1e-9, rtol=0)
    assert second.manifest.provenance["lineage"]["parents"] == [first.digest]
    published.store.publish_many([("other/first", first), ("other/second", second)])
    assert [one.digest for one in published.store.lineage("other/second").ancestors] == [
        first.digest
    ]
    with pytest.raises(UsageError, match="expected an adapter"):
        teacher.teach(new_task, config, published.artefact("bank"))


@pytest.mark.parametrize("init", ["nearest", "blend", "auto", "gradient", "embedding"])
def test_adaptation_may_start_from_seen_tasks(published: Published, init: str) -> None:
    teacher, bank = Teacher.open(published.folder / "backbone"), published.artefact("bank")
    seen = published.artefact("kv-city")
    config = AdaptConfig(steps=1, rows_per_step=4, init=init, router_learning_rate=1e-9)
    task = published.run.tasks[0]
    taught = teacher.teach(task, config, bank, [seen])
    torch.testing.assert_close(
        read_logits(taught.artefact, bank), read_logits(seen, bank), atol=1e-6, rtol=0
    )
    if init == "auto":
        start = read_logits(teacher.teach(task, config, bank).artefact, bank)
        assert start.abs().max() <= 1e-3
        return
    with pytest.raises(UsageError, match="needs the routings"):
        teacher.teach(task, config, bank)


def test_nearest_picks_the_routing_with_the_least_loss(published: Published) -> None:
    teacher, bank = Teacher.open(published.folder / "backbone"), published.artefact("bank")
    routings = [published.artefact(task.name) for task in published.run.tasks]
    config = AdaptConfig(steps=1, rows_per_step=4, init="nearest", router_learning_rate=1e-9)
    for index, task in enumerate(published.run.tasks):
        batch = published.run.objective.collate([(index, e) for e in task.train[:NUM_SCORED]])
        losses = []
        with torch.no_grad():
            for other in range(len(routings)):
                batch["task_of_row"].fill_(other)
                losses.append(float(published.run.objective.loss(published.run.model, batch)))
        chosen = read_logits(teacher.teach(task, config, bank, routings).artefact, bank)
        expected = read_logits(routings[losses.index(min(losses))], bank)
        torch.testing.assert_close(chosen, expected, atol=1e-6, rtol=0)


def test_the_best_dev_step_is_kept(published: Published, new_task: Task) -> None:
    teacher, bank = Teacher.open(published.folder / "backbone"), published.artefact("bank")
    config = AdaptConfig(steps=4, rows_per_step=4, eval_every=2)
    taught = teacher.teach(new_task, config, bank)
    assert 0.0 <= taught.metrics["dev"] <= 1.0


def test_a_step_is_scored_on_dev_rows_that_the_seed_draws(tmp_path: Path) -> None:
    """The file is sorted: whatever is answered, its first half is wrong and its second right."""
    teacher, task = Teacher.open(save_tiny_bert(tmp_path / "bert")), opinion_task(64)
    never = [replace(row, references=("neither",)) for row in task.dev]
    always = [replace(row, references=task.labels) for row in task.dev]
    task = replace(task, dev=[*never, *always])
    config = AdaptConfig(mode="lora", rank=2, steps=1, eval_every=1, eval_examples=len(never))
    scores = [
        teacher.teach(task, replace(config, seed=seed)).metrics["dev"] for seed in (0, 0, 1, 2)
    ]
    assert all(0.25 < score < 0.75 for score in scores)
    assert scores[0] == scores[1]
    assert len(set(scores)) > 1
    whole = teacher.teach(task, replace(config, eval_examples=len(task.dev)))
    assert whole.metrics["dev"] == 0.5


def test_the_same_seed_gives_the_same_artefact(published: Published, new_task: Task) -> None:
    teacher, bank = Teacher.open(published.folder / "backbone"), published.artefact("bank")
    first, second = (teacher.teach(new_task, CONFIG, bank).artefact for _ in range(2))
    assert first.manifest.content_digest == second.manifest.content_digest


def test_a_bank_is_required_and_must_be_for_this_backbone(
    published: Published, new_task: Task, tmp_path: Path
) -> None:
    teacher = Teacher.open(published.folder / "backbone")
    with pytest.raises(UsageError, match="adapts a bank"):
        teacher.teach(new_task, CONFIG)
    with pytest.raises(UsageError, match="expected a bank"):
        teacher.teach(new_task, CONFIG, published.artefact("kv-city"))
    other = Teacher.open(save_tiny_bert(tmp_path / "bert"))
    with pytest.raises(IncompatibleError, match="for backbone"):
        other.teach(opinion_task(), CONFIG, published.artefact("bank"))


def test_an_encoder_learns_a_separable_task(tmp_path: Path) -> None:
    teacher = Teacher.open(save_tiny_bert(tmp_path / "bert"))
    task = opinion_task()
    config = AdaptConfig(mode="lora", rank=2, steps=60, rows_per_step=16, learning_rate=0.02)
    taught = teacher.teach(task, config)
    assert taught.metrics["test"] == 1.0
    manifest = taught.artefact.manifest
    assert manifest.signature is not None
    assert manifest.signature.labels == ("bad", "good")
    assert manifest.head_part is not None
    assert manifest.head_part.num_labels == 2
    assert load_tensors(taught.artefact)["head/weight"].shape == (2, 32)
    assert artefact_accuracy(teacher.backbone.folder, taught.artefact, None, task.test) == 1.0
    section = BackboneSection(source=str(teacher.backbone.folder))
    fresh = backbones.load_model(section, "classification")
    assert all(
        torch.equal(tensor, teacher.model.state_dict()[name])
        for name, tensor in fresh.state_dict().items()
    )


def test_a_start_for_a_mode_without_routing_is_refused(
    published: Published, new_task: Task
) -> None:
    teacher, bank = Teacher.open(published.folder / "backbone"), published.artefact("bank")
    seen = published.artefact("kv-city")
    with pytest.raises(UsageError, match="mode 'mu' learns no routing"):
        teacher.teach(new_task, AdaptConfig(mode="mu", init="nearest"), bank, [seen])


def test_parts_that_tuning_or_a_library_would_drop_are_refused(
    published: Published, new_task: Task
) -> None:
    teacher = Teacher.open(published.folder / "backbone")
    low, scale = (
        teacher.teach(new_task, AdaptConfig(mode=mode, steps=1, rank=2, sites=(role,))).artefact
        for mode, role in (("lora", "self.q"), ("ia3", "self.v"))
    )
    both = build_artefact(
        kind="adapter",
        backbone=teacher.backbone,
        parts=[*low.manifest.parts, *scale.manifest.parts],
        tensors=load_tensors(low) | load_tensors(scale),
        signature=low.manifest.signature,
    )
    for mode, dropped in (("lora", "scale"), ("ia3", "low_rank")):
        with pytest.raises(UsageError, match=f"takes up no {dropped}"):
            teacher.teach(new_task, AdaptConfig(mode=mode), both)
    with pytest.raises(UsageError, match="a library takes up no scale"):
        library_bank([low, both], teacher.backbone)
