"""The loop: exact resume, checkpoints that survive, errors that say where."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from training_kit import tiny_recipe

from adapters_store.errors import IncompatibleError, TrainingError
from training import checkpoint
from training.compile import bank_sites
from training.optimisation import parameter_groups
from training.recipe import TrainSection
from training.run import Run
from training.sampler import Curriculum, TaskBalancedSampler


class CrashError(Exception):
    """Ends a run in the middle, as a crash would."""


def train_until(run: Run, folder: Path, last: int) -> None:
    """Train and die after step ``last``."""

    def die(record: dict[str, Any]) -> None:
        if record["step"] > last:
            raise CrashError

    with pytest.raises(CrashError):
        run.train(folder, die)


def test_a_resumed_run_equals_the_straight_one_bit_for_bit(tmp_path: Path) -> None:
    recipe = tiny_recipe(steps=4)
    straight, broken = Run.build(recipe), Run.build(recipe)
    straight.train(tmp_path / "straight")
    train_until(broken, tmp_path / "broken", 2)
    resumed = Run.build(recipe)
    resumed.train(tmp_path / "broken")
    expected = dict(straight.model.named_parameters())
    for name, found in resumed.model.named_parameters():
        assert torch.equal(found, expected[name]), name
    logs = [(tmp_path / name / "log.jsonl").read_text() for name in ("straight", "broken")]
    losses = [[json.loads(line)["loss"] for line in log.splitlines()] for log in logs]
    assert losses[0] == losses[1]
    assert len(losses[0]) == 4


def test_the_run_folder_records_recipe_seed_versions_and_data(tmp_path: Path) -> None:
    run = Run.build(tiny_recipe(steps=1))
    outcome = run.train(tmp_path)
    recipe = json.loads((tmp_path / "recipe.json").read_text())
    environment = json.loads((tmp_path / "environment.json").read_text())
    assert recipe["train"]["seed"] == 3
    assert environment["versions"]["torch"] == torch.__version__
    assert environment["data"].startswith("sha256:")
    assert json.loads((tmp_path / "outcome.json").read_text())["loss"] == outcome.loss


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    recipe = tiny_recipe(steps=2)
    first = Run.build(recipe).train(tmp_path)
    before = checkpoint.stored_weights(tmp_path)
    before = {name: tensor.clone() for name, tensor in before.items()}
    assert first.loss is not None
    assert Run.build(recipe).train(tmp_path) == first
    assert json.loads((tmp_path / "outcome.json").read_text()) == vars(first)
    after = checkpoint.stored_weights(tmp_path)
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_save_that_dies_keeps_the_last_good_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = tiny_recipe(steps=4)
    run = Run.build(recipe)
    train_until(run, tmp_path, 2)
    good = (tmp_path / "checkpoint.pt").read_bytes()

    def full_disk(state: Any, path: Path) -> None:
        Path(path).write_bytes(b"half of a checkp")
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="no space left"):
        Run.build(recipe).train(tmp_path)
    assert (tmp_path / "checkpoint.pt").read_bytes() == good
    assert checkpoint.latest_step(tmp_path) == 2


def test_an_interrupt_saves_the_running_step_and_can_be_resumed(tmp_path: Path) -> None:
    recipe = tiny_recipe(steps=4)

    def interrupt(record: dict[str, Any]) -> None:
        if record["step"] == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        Run.build(recipe).train(tmp_path, interrupt)
    assert checkpoint.latest_step(tmp_path) in (1, 2)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert Run.build(recipe).train(tmp_path).loss is not None


def test_a_loss_that_is_not_finite_names_step_tasks_and_checkpoint(tmp_path: Path) -> None:
    recipe = tiny_recipe(steps=4)
    run = Run.build(recipe)

    def break_weights(record: dict[str, Any]) -> None:
        if record["step"] == 3:
            with torch.no_grad():
                next(run.model.parameters()).fill_(float("nan"))

    with pytest.raises(TrainingError, match=r"nan at step 3 \(tasks .+\).*checkpoint: step 2"):
        run.train(tmp_path, break_weights)


def test_a_gradient_that_is_not_finite_leaves_the_last_good_weights(tmp_path: Path) -> None:
    run = Run.build(tiny_recipe(steps=4, save_every=1))
    weight = next(p for p in run.model.parameters() if p.requires_grad)

    def break_gradient(record: dict[str, Any]) -> None:
        if record["step"] == 2:
            weight.register_hook(lambda gradient: gradient * float("inf"))

    with pytest.raises(TrainingError, match=r"gradient norm is .+ at step 2 .*checkpoint: step 2"):
        run.train(tmp_path, break_gradient)
    assert all(w.isfinite().all() for w in checkpoint.stored_weights(tmp_path).values())


def test_a_checkpoint_of_another_method_or_a_torn_one_is_refused(tmp_path: Path) -> None:
    Run.build(tiny_recipe(steps=1)).train(tmp_path)
    with pytest.raises(IncompatibleError, match="names differ"):
        Run.build(tiny_recipe("lora", steps=2)).train(tmp_path)
    (tmp_path / "checkpoint.pt").write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(TrainingError, match="cannot be read"):
        checkpoint.latest_step(tmp_path)


def test_router_adapters_and_backbone_learn_at_their_own_rates() -> None:
    run = Run.build(tiny_recipe())
    train = TrainSection(learning_rate=1e-3, router_learning_rate=0.1, backbone_learning_rate=1e-4)
    groups = {group["group"]: group for group in parameter_groups(run.model, train)}
    assert {name: group["lr"] for name, group in groups.items()} == {
        "router": 0.1,
        "adapter": 1e-3,
        "backbone": 1e-4,
    }
    assert groups["router"]["weight_decay"] == 0.0
    num_sites = len(run.model.sites)
    assert len(groups["router"]["params"]) == num_sites
    assert len(groups["adapter"]["params"]) == 2 * num_sites
    counted = sum(p.numel() for group in groups.values() for p in group["params"])
    assert counted == run.model.num_trained() == sum(p.numel() for p in run.model.parameters())


def test_batches_are_a_function_of_seed_and_step_alone() -> None:
    tasks = Run.build(tiny_recipe()).tasks
    first, second = (TaskBalancedSampler(tasks, 6, 1) for _ in range(2))
    straight = [first.batch(step) for step in range(12)]
    assert [second.batch(step) for step in reversed(range(12))] == straight[::-1]
    other = TaskBalancedSampler(tasks, 6, 2)
    assert [other.batch(step) for step in range(12)] != straight
    drawn = [task for rows in straight[:8] for task, _ in rows]
    assert [drawn.count(task) for task in range(3)] == [16, 16, 16]


def test_a_few_shot_batch_holds_every_example_once() -> None:
    task = Run.build(tiny_recipe()).tasks[0]
    sampler = TaskBalancedSampler([task], 32, 0, batches_per_draw=1)
    assert {example for _, example in sampler.batch(5)} == set(task.train)


def test_a_curriculum_begins_with_short_rows() -> None:
    tasks = Run.build(tiny_recipe()).tasks
    plain = TaskBalancedSampler(tasks, 6, 0)
    short = TaskBalancedSampler(tasks, 6, 0, curriculum=Curriculum(steps=100))

    def mean(sampler: TaskBalancedSampler) -> float:
        return sum(len(e.input) for step in range(8) for _, e in sampler.batch(step)) / 48

    assert mean(short) < 0.9 * mean(plain)


def test_a_random_routing_is_kept_with_the_run_however_it_was_drawn(tmp_path: Path) -> None:
    recipe = tiny_recipe(steps=4)
    method = recipe.method.model_copy(update={"has_random_routing": True})
    recipe = recipe.model_copy(update={"method": method})
    run = Run.build(recipe)
    drawn = [method.logits for method in bank_sites(run.model).values()]
    with torch.no_grad():
        for logits in drawn:
            logits.normal_()
    before = [logits.clone() for logits in drawn]
    train_until(run, tmp_path, 2)
    resumed = Run.build(recipe)
    resumed.train(tmp_path)
    for other in (run, resumed, Run.restored(tmp_path)):
        found = [method.logits for method in bank_sites(other.model).values()]
        assert all(torch.equal(a, b) for a, b in zip(found, before, strict=True))


def test_a_checkpoint_of_other_shapes_is_refused_not_broadcast(tmp_path: Path) -> None:
    recipe = tiny_recipe(steps=1)
    one = recipe.tasks.model_copy(update={"names": recipe.tasks.names[:1]})
    Run.build(recipe.model_copy(update={"tasks": one})).train(tmp_path)
    with pytest.raises(
        IncompatibleError, match=r"has shape \(1, 4, 3\); the model's is \(3, 4, 3\)"
    ):
        checkpoint.load_weights(Run.build(recipe).model, checkpoint.stored_weights(tmp_path))
