"""Which weights stand for a run: the best on dev, whatever the test rows are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from published_kit import Published
from training_kit import opinion_task, save_tiny_bert, tiny_recipe

from adapters_store.errors import UsageError
from training import checkpoint
from training.adapt import AdaptConfig, Teacher
from training.publish import run_artefacts, run_backbone
from training.recipe import BackboneSection, MethodSection, Recipe, TasksSection, TrainSection
from training.run import Run
from training.sources import suite_task
from training.suite import Example
from training.task import Task


class Sealed(Sequence[Example]):
    """Test rows that may be counted and not read."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index):
        raise AssertionError("a test row was read")


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Recipe:
    """A run that learns, and then unlearns: the rate is far too high."""
    folder = save_tiny_bert(tmp_path_factory.mktemp("models") / "bert")
    return Recipe(
        name="opinion",
        objective="classification",
        metric="accuracy",
        backbone=BackboneSection(source=str(folder)),
        method=MethodSection(name="lora", rank=2),
        train=TrainSection(
            steps=24,
            rows_per_step=8,
            learning_rate=0.5,
            eval_every=2,
            eval_examples=32,
            log_every=2,
            save_every=4,
            keep="best",
        ),
    )


def test_a_run_keeps_the_weights_of_its_best_dev_score_and_never_reads_test_rows(
    recipe: Recipe, tmp_path: Path
) -> None:
    run = Run.build(recipe, [opinion_task()])
    object.__setattr__(run.tasks[0], "test", Sealed())  # from here on nothing may read them
    run.train(tmp_path)
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    scores = {r["step"]: r["dev"] for r in records if "dev" in r}
    step, weights = checkpoint.stored(tmp_path, "best")
    assert scores[step] == max(scores.values())
    assert all(score < scores[step] for later, score in scores.items() if later > step)
    assert min(scores.values()) < scores[step]
    best = Run.build(recipe, [opinion_task()])
    checkpoint.load_weights(best.model, weights)
    best.model.eval()
    assert round(best.dev_scores(32)["opinion"], 4) == scores[step]
    assert checkpoint.stored(tmp_path)[0] == 24


def test_what_is_published_and_reported_are_the_weights_that_are_kept(
    published: Published, tmp_path: Path
) -> None:
    tiny = tiny_recipe(eval_every=1, keep="best", learning_rate=0.05)
    tiny = tiny.model_copy(
        update={"backbone": BackboneSection(source=str(published.folder / "backbone"))}
    )
    run = Run.build(tiny)
    run.train(tmp_path)
    checkpoint.offer_best(tmp_path, 2, 2.0, Run.build(tiny).model)  # above any score there is
    step, weights = checkpoint.stored(tmp_path, "best")
    restored = Run.restored(tmp_path)
    assert step == 2
    for name, parameter in checkpoint.kept(restored.model).items():
        assert torch.equal(parameter, weights[name])
    _, tasks = run_artefacts(restored, tmp_path, run_backbone(restored, tmp_path))
    provenance = tasks["kv-city"].manifest.provenance
    records = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert provenance["steps"] == 2
    assert provenance["dev"] == records[1]["dev_tasks"]["kv-city"]


def test_of_equal_scores_the_later_stands_and_a_new_run_forgets(tmp_path: Path) -> None:
    model = torch.nn.Linear(1, 1)
    for step, score in ((1, 0.2), (2, 0.5), (3, 0.5), (4, 0.1)):
        with torch.no_grad():
            model.weight.fill_(step)
        checkpoint.offer_best(tmp_path, step, score, model)
    step, weights = checkpoint.stored(tmp_path, "best")
    assert (step, float(weights["weight"])) == (3, 3.0)
    assert [path.name for path in tmp_path.iterdir()] == ["best.pt"]
    run = Run.build(tiny_recipe(steps=1))
    run.train(tmp_path)
    assert not (tmp_path / "best.pt").exists()
    assert checkpoint.stored(tmp_path, "best")[0] == 1


def test_a_best_without_scores_is_refused(recipe: Recipe) -> None:
    train = recipe.train.model_copy(update={"eval_every": None})
    with pytest.raises(UsageError, match=r"needs train\.eval_every"):
        Run.build(recipe.model_copy(update={"train": train}), [opinion_task()])
    with pytest.raises(UsageError, match="examples for dev"):
        Run.build(recipe, [replace(opinion_task(), dev=())])


def test_a_run_without_examples_for_dev_refuses_to_score_them(recipe: Recipe) -> None:
    train = recipe.train.model_copy(update={"keep": "last"})
    bare = replace(opinion_task(), dev=())
    last = recipe.model_copy(update={"train": train})
    with pytest.raises(UsageError, match=r"train\.eval_every scores examples for dev, and no task"):
        Run.build(last, [bare])
    assert Run.build(last, [bare, replace(opinion_task(), name="other")]).tasks[0] is bare
    assert Run.build(last, [bare], is_begun=True).tasks == [bare]


def test_test_rows_do_not_change_what_a_task_learns(published: Published) -> None:
    """The step is chosen on dev: other test rows give the very same artefact and dev score."""
    teacher, bank = Teacher.open(published.folder / "backbone"), published.artefact("bank")
    task = suite_task("phrase-kebab", TasksSection(num_train=8, num_dev=4, num_test=4))
    swapped = replace(task, test=[Example(e.output, e.input) for e in task.test])
    config = AdaptConfig(steps=6, rows_per_step=4, eval_every=2, metric="rouge_l")
    first, second, unscored = (
        teacher.teach(one, config, bank) for one in (task, swapped, replace(task, test=()))
    )
    assert {"test"} == first.metrics.keys() - unscored.metrics.keys()
    digests = {one.artefact.manifest.content_digest for one in (first, second, unscored)}
    assert len(digests) == 1
    assert first.metrics["dev"] == second.metrics["dev"] == unscored.metrics["dev"]


def test_the_best_dev_step_beats_a_later_one(recipe: Recipe) -> None:
    teacher = Teacher.open(Path(recipe.backbone.source or ""))
    task: Task = opinion_task()
    spoilt = AdaptConfig(mode="lora", rank=2, steps=24, rows_per_step=8, learning_rate=0.5)
    last = teacher.teach(replace(task, dev=()), spoilt)
    best = teacher.teach(task, replace(spoilt, eval_every=2, eval_examples=32))
    assert best.metrics["dev"] > last.metrics["test"]  # dev and test hold the same rows here
    assert best.metrics["test"] == best.metrics["dev"]
