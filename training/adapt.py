"""Adaptation: one new task from a few examples, on a frozen backbone, to one artefact."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from adapters_store.artefact import Artefact
from adapters_store.backbone import Backbone
from adapters_store.ledger.ancestry import LINEAGE_KEY
from training import backbones
from training.compile import compile_task, signature
from training.evaluation import accuracy, predictions
from training.inits import Init, choose_routing
from training.injection import eject
from training.lengths import fitted, limits_of
from training.loop import fit
from training.methods.routing import Granularity
from training.metrics import check_metric
from training.model import AdaptedModel
from training.objectives import build_objective
from training.objectives.base import Objective
from training.provenance import lineage
from training.recipe import BackboneSection, LongInput, ObjectiveName, TrainSection
from training.restore import check_backbone, restore
from training.sampler import TaskBalancedSampler
from training.sources.planning import shuffled
from training.starts import ROUTED, Mode, checked_init, parents, start
from training.task import Task


@dataclass(frozen=True)
class AdaptConfig:
    """How one task is learnt.

    ``mode``: ``z`` learns a routing over the bank, ``mu`` tunes the bank's average, ``full`` tunes
    every skill and a routing, ``soup`` learns an average of a library's adapters, ``lora`` and
    ``ia3`` start afresh at ``sites``. ``gate`` and ``granularity`` are the routing's; None follows
    the bank's training. ``on_long_input`` is as in a recipe. ``eval_every`` picks the step of the
    best ``metric`` on ``eval_examples`` dev rows, drawn by the seed; without it, or without a dev
    split, the last stands.
    """

    mode: Mode = "z"
    init: Init = "auto"
    gate: str = "sigmoid"
    granularity: Granularity | None = None
    steps: int = 40
    rows_per_step: int = 32
    learning_rate: float = 2e-3
    router_learning_rate: float = 0.1
    eval_every: int | None = None
    eval_examples: int = 200
    rank: int = 8
    sites: tuple[str, ...] = ("all",)
    max_input_tokens: int = 128
    max_output_tokens: int = 64
    on_long_input: LongInput | None = None
    metric: str = "exact_match"
    seed: int = 0

    def section(self) -> TrainSection:
        """The loop's settings."""
        return TrainSection(
            steps=self.steps,
            rows_per_step=self.rows_per_step,
            learning_rate=self.learning_rate,
            router_learning_rate=self.router_learning_rate,
            weight_decay=0.0,
            eval_every=self.eval_every,
            log_every=self.steps,
            seed=self.seed,
        )


@dataclass(frozen=True)
class Taught:
    """The task's artefact; ``metrics`` has loss, seconds, num_trained and dev and test scores."""

    artefact: Artefact
    metrics: dict[str, Any]


class Teacher:
    """A frozen backbone that is taught one task after another; its own weights never change."""

    def __init__(self, backbone: Backbone, model: Any, tokenizer: Any, kind: ObjectiveName) -> None:
        self.backbone, self.model, self.tokenizer, self.kind = backbone, model, tokenizer, kind

    @classmethod
    def open(cls, folder: Path, *, kind: ObjectiveName | None = None) -> Self:
        """Load the backbone in ``folder``; a model that writes learns text, an encoder labels.

        ``kind`` asks for another objective: ``choice`` learns text by ranking choices.
        """
        backbone = Backbone.from_folder(folder)
        can_write = backbone.shapes.anatomy.can_generate
        chosen: ObjectiveName = kind or ("text2text" if can_write else "classification")
        section = BackboneSection(source=str(folder))
        model = backbones.load_model(section, chosen).eval()
        return cls(backbone, model, backbones.load_tokenizer(section), chosen)

    def teach(
        self,
        task: Task,
        config: AdaptConfig,
        source: Artefact | None = None,
        neighbours: Sequence[Artefact] = (),
    ) -> Taught:
        """Learn ``task`` from its train split and compile it.

        ``source`` is the bank, or for ``lora`` and ``ia3`` an adapter to tune further. Mode ``z``
        gives a routing over the bank, the others an adapter. ``neighbours`` are the seen tasks'
        routings for ``init`` other than ``uniform``. Raises :class:`UsageError` for a missing or
        wrong source, :class:`IncompatibleError` for another backbone's.
        """
        is_routed = config.mode in ROUTED
        init = checked_init(config.mode, config.init, config.gate, config.granularity)
        check_metric(config.metric)
        limits = (config.max_input_tokens, config.max_output_tokens)
        rule = limits_of(self.kind, *limits, config.on_long_input)
        task, notes = fitted(task, self.tokenizer, rule)
        torch.manual_seed(config.seed)
        if source is not None:
            check_backbone(source, self.backbone)
        methods = start(
            self.backbone,
            config.mode,
            source,
            config.sites,
            config.rank,
            gate=config.gate,
            granularity=config.granularity,
        )
        adapted = AdaptedModel(
            self.model,
            [self.backbone.sites[name] for name in methods],
            methods,
            num_labels=[len(task.labels)] if self.kind == "classification" else (),
        )
        try:
            if source is not None and is_routed:
                choose_routing(
                    adapted, self.objective(task, config), task, init, source, neighbours
                )
            metrics = self._fit(adapted, task, config)
            if notes:
                metrics["rows"] = notes
            routed_over = source if config.mode == "z" else None
            artefact = compile_task(
                adapted,
                0,
                self.backbone,
                signature(task, self.kind, limits),
                bank=routed_over,
                provenance={
                    "method": config.mode,
                    "objective": self.kind,
                    "init": config.init,
                    **({"gate": config.gate} if is_routed else {}),
                    "steps": config.steps,
                    "num_examples": len(task.train),
                    "scores": {k: v for k, v in metrics.items() if k in ("dev", "test")},
                    LINEAGE_KEY: lineage(
                        config,
                        [task],
                        seed=config.seed,
                        parents=parents(source, config.mode) if source else [],
                    ),
                },
            )
        finally:
            eject(self.model, adapted.sites)
        return Taught(artefact, metrics)

    def objective(self, task: Task, config: AdaptConfig) -> Objective:
        """The objective of one task on this backbone."""
        return build_objective(
            self.kind,
            self.model,
            self.tokenizer,
            max_input_tokens=config.max_input_tokens,
            max_output_tokens=config.max_output_tokens,
            labels=[task.labels],
        )

    def score(self, artefact: Artefact, task: Task, bank: Artefact | None = None) -> float:
        """Exact match of an artefact on the task's test split, as training computes it."""
        adapted = restore(self.model, self.backbone, artefact, bank)
        return self._test_score(adapted, task)

    def outputs(self, artefact: Artefact, task: Task, bank: Artefact | None = None) -> list[str]:
        """What an artefact answers to the task's test inputs, as training computes it."""
        about = artefact.manifest.signature
        limits = (about.max_input_tokens, about.max_output_tokens) if about else (128, 64)
        config = AdaptConfig(max_input_tokens=limits[0], max_output_tokens=limits[1])
        adapted = restore(self.model, self.backbone, artefact, bank)
        try:
            return predictions(adapted, self.objective(task, config), 0, task.test)
        finally:
            eject(self.model, adapted.sites)

    def untaught_score(self, task: Task, bank: Artefact) -> float:
        """Exact match of the bank's uniform mix on the test split: what zero examples give."""
        methods = start(self.backbone, "mu", bank, (), 1)
        sites = [self.backbone.sites[name] for name in methods]
        return self._test_score(AdaptedModel(self.model, sites, methods), task)

    def _test_score(self, adapted: AdaptedModel, task: Task) -> float:
        try:
            return accuracy(adapted, self.objective(task, AdaptConfig()), 0, task.test)
        finally:
            eject(self.model, adapted.sites)

    def _fit(self, adapted: AdaptedModel, task: Task, config: AdaptConfig) -> dict[str, Any]:
        objective = self.objective(task, config)
        best: tuple[float, dict[str, torch.Tensor]] | None = None
        order = shuffled(len(task.dev), random.Random(f"{config.seed}/{task.name}/dev"))
        shown = [task.dev[index] for index in islice(order, config.eval_examples)]

        def select(step: int) -> dict[str, Any]:
            nonlocal best
            score = accuracy(adapted, objective, 0, shown, config.metric)
            if best is None or score >= best[0]:
                best = (score, _copied(adapted))
            return {"dev": score}

        began = time.monotonic()
        sampler = TaskBalancedSampler([task], config.rows_per_step, config.seed, batches_per_draw=1)
        outcome = fit(
            adapted,
            objective,
            sampler,
            config.section(),
            evaluate=select if shown else None,
        )
        metrics: dict[str, Any] = {"loss": outcome.loss, "num_trained": adapted.num_trained()}
        if best is not None:
            metrics["dev"] = best[0]
            adapted.load_state_dict(best[1], strict=False)
        metrics["seconds"] = round(time.monotonic() - began, 3)
        if task.test:
            metrics["test"] = accuracy(adapted, objective, 0, task.test, config.metric)
        return metrics


def _copied(model: nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
