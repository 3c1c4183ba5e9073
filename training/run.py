"""A run: a recipe made into data, model and objective, trained in a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from adapters_store.errors import NotFoundError, UsageError
from training import backbones, checkpoint
from training.alignment import fixed_probe, gradient_alignment, shared_parameters
from training.evaluation import accuracy
from training.injection import select_sites
from training.lengths import Notes, fitted, limits_of
from training.loop import Outcome, Report, fit
from training.methods import MethodConfig
from training.metrics import check_metric
from training.mixing import build_sampler
from training.model import AdaptedModel
from training.objectives import build_objective
from training.objectives.base import Objective
from training.progress import tell
from training.provenance import check_same_data, data_digest, data_record, environment
from training.recipe import Recipe, TrainSection, parse_recipe
from training.sampler import Curriculum
from training.sources import load_tasks
from training.task import Task
from training.warm import begin, is_artefact
from training.workers import Workers

RECIPE_FILE = "recipe.json"
ENVIRONMENT_FILE = "environment.json"
OUTCOME_FILE = "outcome.json"


def read_recipe(folder: Path) -> Recipe:
    """The recipe of the run in ``folder``; raises :class:`NotFoundError` if there is no run."""
    path = folder / RECIPE_FILE
    if not path.is_file():
        raise NotFoundError(
            f"no run in {folder}: {RECIPE_FILE} is missing",
            hint="`patchbay train ls` lists runs and recipes.",
        )
    return parse_recipe(json.loads(path.read_text(encoding="utf-8")), str(path))


def task_names(folder: Path) -> list[str]:
    """The tasks of the run in ``folder`` as it recorded them, in order; empty without a record."""
    path = folder / ENVIRONMENT_FILE
    record = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return list(record.get("rows", ()))


def train_recipe(
    recipe: Recipe,
    folder: Path,
    workers: Workers,
    *,
    report: Report | None = None,
    is_asked_to_stop: Callable[[], bool] | None = None,
) -> Outcome:
    """Build the recipe's run on each worker and train it in ``folder``, as :meth:`Run.train`."""
    with workers.agreeing():
        run = Run.build(recipe, is_begun=checkpoint.latest_step(folder) is not None)
    if workers.is_main:
        tell(run.notes)
    return run.train(folder, report, workers=workers, is_asked_to_stop=is_asked_to_stop)


def check_measures(train: TrainSection, tasks: Sequence[Task]) -> None:
    """Raise :class:`UsageError` for a measure that lacks examples, tasks or a setting."""
    if train.keep == "best" and not train.eval_every:
        raise UsageError("train.keep is best, which needs train.eval_every and examples for dev")
    if train.eval_every and not any(task.dev for task in tasks):
        raise UsageError(
            "train.eval_every scores examples for dev, and no task has any",
            hint="Give the tasks rows for dev, or set train.eval_every to null.",
        )
    if train.alignment_every and len(tasks) < 2:
        raise UsageError("train.alignment_every compares tasks; the run has one")


@dataclass
class Run:
    """The parts of one run, ready to train or evaluate."""

    recipe: Recipe
    tasks: list[Task]
    model: AdaptedModel
    objective: Objective
    tokenizer: Any
    notes: dict[str, Notes] = field(default_factory=dict)

    @classmethod
    def build(
        cls, recipe: Recipe, tasks: list[Task] | None = None, *, is_begun: bool = False
    ) -> Run:
        """Make every part from the recipe; the seed is set first, so the start is repeatable.

        ``is_begun`` leaves ``method.start`` unread, of which a checkpoint holds what became, and
        takes the measures of the run's beginning as they are.
        """
        check_metric(recipe.metric)
        torch.manual_seed(recipe.train.seed)
        tasks = load_tasks(recipe.tasks) if tasks is None else tasks
        if not is_begun:
            check_measures(recipe.train, tasks)
        model = backbones.load_model(recipe.backbone, recipe.objective)
        method = recipe.method
        config = MethodConfig(
            name=method.name,
            rank=method.rank,
            alpha=method.alpha,
            num_skills=method.num_skills,
            num_heads=method.num_heads,
            num_tasks=len(tasks),
            is_private=method.is_private,
            gate=method.gate,
            granularity=method.granularity,
            has_random_routing=method.has_random_routing,
            embedding_size=method.embedding_size,
            side=method.side,
        )
        is_classification = recipe.objective == "classification"
        if is_classification and (bare := [task.name for task in tasks if not task.labels]):
            raise UsageError(
                f"task {bare[0]!r} has no labels to classify by",
                hint="Set `tasks.has_labels`, or another objective.",
            )
        adapted = AdaptedModel.build(
            model,
            select_sites(backbones.sites_of(model), method.sites),
            config,
            trains_backbone=recipe.backbone.is_trained,
            num_labels=[len(task.labels) for task in tasks] if is_classification else (),
        )
        if method.start is not None and not is_begun:
            source = Path(method.start)
            earlier = None if is_artefact(source) else read_recipe(source)
            begin(adapted, recipe, earlier, source)
        if recipe.train.alignment_every:
            shared_parameters(adapted)
        tokenizer = backbones.load_tokenizer(recipe.backbone)
        objective = build_objective(
            recipe.objective,
            model,
            tokenizer,
            max_input_tokens=recipe.max_input_tokens,
            max_output_tokens=recipe.max_output_tokens,
            labels=[task.labels for task in tasks],
        )
        limits = limits_of(
            recipe.objective,
            recipe.max_input_tokens,
            recipe.max_output_tokens,
            recipe.on_long_input,
        )
        fits = [fitted(task, tokenizer, limits) for task in tasks]
        notes = {task.name: found for task, found in fits if found}
        return cls(recipe, [task for task, _ in fits], adapted, objective, tokenizer, notes)

    @classmethod
    def restored(cls, folder: Path) -> Run:
        """The run in ``folder`` with the weights that it keeps, ready to evaluate or publish.

        Raises :class:`NotFoundError` where the folder holds no run or no checkpoint, and
        TrainingError where its data changed: names and labels would be those of other data.
        """
        if checkpoint.latest_step(folder) is None:
            raise NotFoundError(
                f"no checkpoint in {folder}", hint="Start with `patchbay train run RECIPE`."
            )
        run = cls.build(read_recipe(folder), is_begun=True)
        run._check_data(folder, data_record(run.tasks, run.notes))
        keep = run.recipe.train.keep
        checkpoint.load_weights(run.model, checkpoint.stored_weights(folder, keep))
        run.model.eval()
        return run

    def dev_scores(self, num_examples: int, workers: Workers | None = None) -> dict[str, float]:
        """The recipe's metric per task on the first ``num_examples`` dev examples.

        The workers share the tasks out, and each has every task's score.
        """
        indices = [index for index, task in enumerate(self.tasks) if task.dev]
        found = {}
        with workers.agreeing() if workers else nullcontext():
            for index in workers.share(indices) if workers else indices:
                dev = self.tasks[index].dev[:num_examples]
                found[index] = accuracy(self.model, self.objective, index, dev, self.recipe.metric)
        shares = workers.gather(found) if workers else [found]
        scores = {index: score for share in shares for index, score in share.items()}
        return {self.tasks[index].name: scores[index] for index in indices}

    def _record(self, folder: Path, num_workers: int) -> None:
        """Write the recipe and the environment; raises TrainingError where the data changed."""
        record = environment() | data_record(self.tasks, self.notes) | {"workers": num_workers}
        if checkpoint.latest_step(folder) is not None:
            self._check_data(folder, record)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECIPE_FILE).write_text(self.recipe.model_dump_json(indent=2) + "\n")
        (folder / ENVIRONMENT_FILE).write_text(json.dumps(record, indent=2) + "\n")

    @staticmethod
    def _check_data(folder: Path, record: Mapping[str, Any]) -> None:
        """Raise TrainingError where ``record`` is of other data than the run's, if it has one."""
        path = folder / ENVIRONMENT_FILE
        if path.exists():
            check_same_data(json.loads(path.read_text(encoding="utf-8")), record, folder)

    def alignment(self) -> dict[str, Any]:
        """Gradient alignment on the recipe's fixed probe: both means, task names and all pairs."""
        train = self.recipe.train
        probe = fixed_probe(self.tasks, train.alignment_tasks, train.alignment_rows)
        found = gradient_alignment(self.model, self.objective, probe)
        return {
            "shared": round(found.shared, 4),
            "composed": round(found.composed, 4),
            "tasks": [self.tasks[rows[0][0]].name for rows in probe],
            "pairs": [[round(float(one), 3) for one in row] for row in found.pairs],
        }

    def train(
        self,
        folder: Path,
        report: Report | None = None,
        *,
        workers: Workers | None = None,
        is_asked_to_stop: Callable[[], bool] | None = None,
    ) -> Outcome:
        """Train in ``folder``, going on from its checkpoint if it has one.

        The folder then holds the recipe, the environment, log.jsonl, checkpoint and outcome. Where
        no step is left, the outcome is the one that it holds.
        Several workers call this together; rank 0 writes the folder, which all of them see.
        """
        train = self.recipe.train
        workers = workers or Workers(train.mixed_precision)
        if workers.size > 1:
            workers.check_same("data", data_digest(self.tasks))
        with workers.agreeing():
            if workers.is_main:
                self._record(folder, workers.size)
        sampler = build_sampler(
            self.tasks,
            train.rows_per_step,
            train.seed,
            self.recipe.tasks.mixing,
            Curriculum(train.curriculum_steps),
        )

        def evaluate(step: int) -> dict[str, Any]:
            scores = self.dev_scores(train.eval_examples, workers)
            if not scores:
                return {}
            mean = sum(scores.values()) / len(scores)
            if train.keep == "best" and workers.is_main:
                checkpoint.offer_best(folder, step, mean, self.model)
            return {"dev": round(mean, 4), "dev_tasks": {k: round(v, 3) for k, v in scores.items()}}

        def align(step: int) -> dict[str, Any]:
            return {"alignment": self.alignment()} if workers.is_main else {}

        if workers.is_main and checkpoint.latest_step(folder) is None:
            checkpoint.drop_best(folder)
        outcome = fit(
            self.model,
            self.objective,
            sampler,
            train,
            folder=folder,
            evaluate=evaluate,
            align=align,
            report=report,
            workers=workers,
            is_asked_to_stop=is_asked_to_stop,
        )
        kept = folder / OUTCOME_FILE
        if outcome.loss is None and kept.is_file():
            return Outcome(**json.loads(kept.read_text(encoding="utf-8")))
        if workers.is_main:
            kept.write_text(json.dumps(outcome.__dict__) + "\n")
        return outcome
