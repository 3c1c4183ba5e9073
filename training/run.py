"""A run: a recipe made into data, model and objective, trained in a folder of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adapters_store.lazy import resolve
from training import backbones
from training.evaluation import accuracy
from training.injection import select_sites
from training.loop import Outcome, Report, fit
from training.methods import MethodConfig
from training.model import AdaptedModel
from training.objectives import OBJECTIVES
from training.objectives.base import Objective
from training.recipe import Recipe
from training.sampler import TaskBalancedSampler
from training.sources import load_tasks
from training.task import Task


@dataclass
class Run:
    """The parts of one run, ready to train or evaluate."""

    recipe: Recipe
    tasks: list[Task]
    model: AdaptedModel
    objective: Objective
    tokenizer: Any

    @classmethod
    def build(cls, recipe: Recipe, tasks: list[Task] | None = None) -> Run:
        """Make every part from the recipe; the seed is set first, so the start is repeatable."""
        torch.manual_seed(recipe.train.seed)
        tasks = load_tasks(recipe.tasks) if tasks is None else tasks
        model = backbones.load_model(recipe.backbone, recipe.objective)
        method = recipe.method
        config = MethodConfig(
            name=method.name,
            rank=method.rank,
            alpha=method.alpha,
            num_skills=method.num_skills,
            num_heads=1 if method.name == "poly" else method.num_heads,
            num_tasks=len(tasks),
            is_private=method.is_private,
            gate=method.gate,
        )
        is_classification = recipe.objective == "classification"
        adapted = AdaptedModel(
            model,
            select_sites(backbones.sites_of(model), method.sites),
            config,
            trains_backbone=recipe.backbone.is_trained,
            num_labels=[len(task.labels) for task in tasks] if is_classification else (),
            hidden_size=model.config.hidden_size,
        )
        tokenizer = backbones.load_tokenizer(recipe.backbone)
        objective = resolve(OBJECTIVES, recipe.objective, "objective")(
            tokenizer,
            max_input_tokens=recipe.max_input_tokens,
            max_output_tokens=recipe.max_output_tokens,
            labels=[task.labels for task in tasks],
        )
        return cls(recipe, tasks, adapted, objective, tokenizer)

    def dev_scores(self, num_examples: int) -> dict[str, float]:
        """Exact match per task on the first ``num_examples`` dev examples."""
        return {
            task.name: accuracy(self.model, self.objective, index, task.dev[:num_examples])
            for index, task in enumerate(self.tasks)
            if task.dev
        }

    def train(self, folder: Path, report: Report | None = None) -> Outcome:
        """Train in ``folder``, which then holds recipe.json, log.jsonl and the checkpoint."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "recipe.json").write_text(self.recipe.model_dump_json(indent=2) + "\n")
        train = self.recipe.train
        sampler = TaskBalancedSampler(self.tasks, train.rows_per_step, train.seed)

        def evaluate(step: int) -> dict[str, Any]:
            scores = self.dev_scores(train.eval_examples)
            if not scores:
                return {}
            mean = sum(scores.values()) / len(scores)
            return {"dev": round(mean, 4), "dev_tasks": {k: round(v, 3) for k, v in scores.items()}}

        outcome = fit(
            self.model,
            self.objective,
            sampler,
            train,
            folder=folder,
            evaluate=evaluate,
            report=report,
        )
        (folder / "outcome.json").write_text(json.dumps(outcome.__dict__) + "\n")
        return outcome


ReportFactory = Callable[[int], Report]
