"""The training loop: one readable pass over steps, with logging, checkpoints and exact resume."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from adapters_store.errors import TrainingError
from training import checkpoint
from training.interrupt import deferred_interrupt
from training.model import AdaptedModel
from training.objectives.base import Objective, Row
from training.optimisation import parameter_groups, schedule
from training.recipe import TrainSection
from training.sampler import TaskBalancedSampler

Report = Callable[[dict[str, Any]], None]


@dataclass
class Outcome:
    """What a finished run can say of itself: steps, seconds spent, last loss (None if no step)."""

    steps: int
    seconds: float
    loss: float | None


class Trainer:
    """One run's optimiser, schedule and position. ``step()`` is one update."""

    def __init__(
        self,
        model: AdaptedModel,
        objective: Objective,
        sampler: TaskBalancedSampler,
        train: TrainSection,
        folder: Path | None,
    ) -> None:
        self.objective, self.sampler, self.train, self.folder = objective, sampler, train, folder
        self.accelerator = Accelerator(mixed_precision=train.mixed_precision)
        optimizer = torch.optim.AdamW(parameter_groups(model, train), fused=True)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule(train))
        self.model, self.optimizer, self.scheduler = self.accelerator.prepare(
            model, optimizer, scheduler
        )
        self.trained = [p for p in self.model.parameters() if p.requires_grad]
        self.done = 0
        if folder:
            self.done = checkpoint.resume(folder, self.model, self.optimizer, self.scheduler)
            _trim_log(folder, self.done)

    def step(self) -> tuple[float, float]:
        """One update; returns the loss and the gradients' norm before clipping."""
        rows = self.sampler.batch(self.done)
        device = self.accelerator.device
        batch = {k: v.to(device) for k, v in self.objective.collate(rows).items()}
        with self.accelerator.autocast():
            loss = self.objective.loss(self.model, batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise self._not_finite(value, rows)
        self.accelerator.backward(loss)
        norm = self.accelerator.clip_grad_norm_(self.trained, self.train.max_grad_norm)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        self.done += 1
        return value, float(norm)

    def save(self) -> None:
        """Write the checkpoint of the present step, if the run has a folder."""
        if self.folder:
            checkpoint.save(self.folder, self.done, self.model, self.optimizer, self.scheduler)

    def _not_finite(self, value: float, rows: Sequence[Row]) -> TrainingError:
        names = sorted({self.sampler.tasks[task].name for task, _ in rows})
        kept = checkpoint.latest_step(self.folder) if self.folder else None
        return TrainingError(
            f"loss is {value} at step {self.done} (tasks {', '.join(names)}); last good "
            f"checkpoint: {'none' if kept is None else f'step {kept}'}",
            hint="Lower the learning rate, then resume from the checkpoint.",
        )


def fit(
    model: AdaptedModel,
    objective: Objective,
    sampler: TaskBalancedSampler,
    train: TrainSection,
    *,
    folder: Path | None = None,
    evaluate: Callable[[int], dict[str, Any]] | None = None,
    report: Report | None = None,
) -> Outcome:
    """Train ``model`` for ``train.steps`` steps; resume from ``folder`` if it has a checkpoint.

    Writes ``log.jsonl`` and the checkpoint into ``folder``. Raises :class:`TrainingError` with
    the step, the tasks and the last good checkpoint when the loss is not finite. A first Ctrl-C
    ends after the running step, which is saved, and then raises KeyboardInterrupt.
    """
    trainer = Trainer(model, objective, sampler, train, folder)
    model.train()
    began, window = time.monotonic(), list[float]()
    loss: float | None = None
    with deferred_interrupt() as interrupt:
        while trainer.done < train.steps:
            loss, norm = trainer.step()
            window.append(loss)
            done = trainer.done
            record: dict[str, Any] = {}
            if done % train.log_every == 0 or done == train.steps:
                record = {
                    "step": done,
                    "loss": sum(window) / len(window),
                    "grad_norm": norm,
                    "seconds": round(time.monotonic() - began, 3),
                }
                window.clear()
            if evaluate and train.eval_every and done % train.eval_every == 0:
                model.eval()
                record |= {"step": done, **evaluate(done)}
                model.train()
            if record:
                _log(folder, record)
                if report:
                    report(record)
            if interrupt.is_set or done % train.save_every == 0 or done == train.steps:
                trainer.save()
            if interrupt.is_set:
                raise KeyboardInterrupt
    model.eval()
    return Outcome(train.steps, time.monotonic() - began, loss)


def _log(folder: Path | None, record: dict[str, Any]) -> None:
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


def _trim_log(folder: Path, done: int) -> None:
    """Drop the records of steps after the checkpoint: they are about to be made again."""
    path = folder / "log.jsonl"
    if path.exists():
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
        kept = [line for line in lines if line.endswith("\n") and json.loads(line)["step"] <= done]
        path.write_text("".join(kept), encoding="utf-8")
