"""The training loop: one readable pass over steps, with logging, checkpoints and exact resume."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adapters_store.errors import PatchbayError, TrainingError, UsageError
from training import checkpoint, log
from training.interrupt import deferred_interrupt
from training.model import AdaptedModel
from training.objectives.base import Objective
from training.optimisation import parameter_groups, schedule
from training.recipe import TrainSection
from training.sampler import TaskBalancedSampler
from training.workers import Workers

Report = Callable[[dict[str, Any]], None]
Measure = Callable[[int], dict[str, Any]]
"""What a record of the log says of the step that was just done."""


@dataclass
class Outcome:
    """What a finished run can say of itself: steps, seconds spent, last loss (None if no step)."""

    steps: int
    seconds: float
    loss: float | None


@dataclass(frozen=True)
class Update:
    """What one step tells: the batch's loss, the gradients' norm before clipping, and whether some
    worker was asked to stop."""

    loss: float
    norm: float
    is_last: bool


class Trainer:
    """One run's optimiser, schedule and position. ``step()`` is one update by all workers.

    Raises :class:`UsageError` for a batch that has fewer rows than there are workers.
    """

    def __init__(
        self,
        model: AdaptedModel,
        objective: Objective,
        sampler: TaskBalancedSampler,
        train: TrainSection,
        folder: Path | None,
        workers: Workers,
    ) -> None:
        if train.rows_per_step < workers.size:
            raise UsageError(
                f"train.rows_per_step {train.rows_per_step} is less than one row for each of "
                f"{workers.size} workers"
            )
        self.objective, self.sampler, self.train, self.folder = objective, sampler, train, folder
        self.workers, self.model = workers, model.to(workers.device)
        optimizer = torch.optim.AdamW(parameter_groups(model, train), fused=True)
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule(train))
        self.optimizer = workers.accelerator.prepare(optimizer)
        self.trained = [p for p in model.parameters() if p.requires_grad]
        self.done = 0
        if folder:
            with workers.agreeing():
                self.done = checkpoint.resume(folder, *self._state())
        workers.align(list(checkpoint.kept(model).values()), self.done)
        if folder and workers.is_main:
            log.trim(folder, self.done)

    def step(self, is_stopping: bool = False) -> Update:
        """One update over the step's batch, of which each worker computes its share.

        Every mean of the loss is taken over the whole batch, however it is shared out, and the
        norm is that of the whole batch's gradient.
        """
        batches, totals = self._collated()
        loss = torch.zeros((), device=self.workers.device)
        for index, batch in enumerate(batches):
            torch.manual_seed(self._noise_seed(index))
            with self.workers.accelerator.autocast():
                part = self.objective.loss(self.model, batch, totals)
            self.workers.accelerator.backward(part)
            loss += part.detach()
        told = torch.stack([loss, torch.full_like(loss, is_stopping)])
        value, is_last = self.workers.sum_gradients(self.trained, told).tolist()
        if not math.isfinite(value):
            raise self._not_finite("loss", value)
        accelerator = self.workers.accelerator
        norm = float(accelerator.clip_grad_norm_(self.trained, self.train.max_grad_norm))
        if not math.isfinite(norm) and accelerator.scaler is None:  # a scaler skips such a step
            raise self._not_finite("gradient norm", norm)
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        self.done += 1
        return Update(value, norm, bool(is_last))

    def _collated(self) -> tuple[list[dict[str, torch.Tensor]], torch.Tensor]:
        """This worker's rows as batches of at most ``rows_per_device``, and all workers' counts.

        A row that one worker cannot read stops all of them with that worker's error.
        """
        fault = None
        counts = torch.zeros(1 + self.objective.num_means, device=self.workers.device)
        batches = []
        try:
            rows = self.workers.share(self.sampler.batch(self.done))
            size = self.train.rows_per_device or len(rows)
            for start in range(0, len(rows), size):
                batch = self.objective.collate(rows[start : start + size])
                batches.append({k: v.to(self.workers.device) for k, v in batch.items()})
                counts[1:] += self.objective.counts(batches[-1])
        except PatchbayError as error:
            fault, counts[0] = error, 1
        num_faults, *_ = self.workers.total(counts)
        if num_faults:
            self.workers.raise_first(fault)
        return batches, counts[1:]

    def _noise_seed(self, part: int) -> int:
        """The seed of the random numbers in one forward of this step.

        With a frozen backbone these are a routing gate's draws, one for each task: the same in
        every share. With a trained one dropout draws too, one for each token: other in each share.
        """
        share = f"{self.workers.rank}/{part}" if self.model.trains_backbone else ""
        return random.Random(f"{self.train.seed}/{self.done}/{share}").getrandbits(32)

    def save(self) -> None:
        """Write the checkpoint of the present step, if the run has a folder: rank 0 alone does."""
        if self.folder and self.workers.is_main:
            checkpoint.save(self.folder, self.done, *self._state())

    def _state(self) -> tuple[AdaptedModel, Any, Any, Any]:
        scaler = self.workers.accelerator.scaler
        return self.model, self.optimizer, self.scheduler, scaler

    def _not_finite(self, what: str, value: float) -> TrainingError:
        rows = self.sampler.batch(self.done)
        names = sorted({self.sampler.tasks[task].name for task, _ in rows})
        kept = checkpoint.latest_step(self.folder) if self.folder else None
        return TrainingError(
            f"{what} is {value} at step {self.done} (tasks {', '.join(names)}); last good "
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
    evaluate: Measure | None = None,
    align: Measure | None = None,
    report: Report | None = None,
    workers: Workers | None = None,
    is_asked_to_stop: Callable[[], bool] | None = None,
) -> Outcome:
    """Train ``model`` for ``train.steps`` steps; resume from ``folder`` if it has a checkpoint.

    Every worker calls this with the same arguments, and ``evaluate`` and ``align`` are called on
    each, every ``train.eval_every`` and ``train.alignment_every`` steps; rank 0 writes
    ``log.jsonl`` and the checkpoint into ``folder`` and reports. Raises :class:`TrainingError` with
    the step, the tasks and the last good checkpoint when the loss is not finite. A first Ctrl-C, or
    ``is_asked_to_stop``, ends every worker after the running step, which is saved, and then raises
    KeyboardInterrupt.
    """
    workers = workers or Workers(train.mixed_precision)
    trainer = Trainer(model, objective, sampler, train, folder, workers)
    model.train()
    began, window = time.monotonic(), list[float]()
    loss: float | None = None
    with deferred_interrupt(is_asked_to_stop) as interrupt:
        while trainer.done < train.steps:
            update = trainer.step(interrupt.is_set)
            loss, done = update.loss, trainer.done
            window.append(loss)
            record: dict[str, Any] = {}
            if done % train.log_every == 0 or done == train.steps:
                record = {
                    "step": done,
                    "loss": sum(window) / len(window),
                    "grad_norm": update.norm,
                    "seconds": round(time.monotonic() - began, 3),
                }
                window.clear()
            for measure, every in ((evaluate, train.eval_every), (align, train.alignment_every)):
                if measure and every and done % every == 0:
                    model.eval()
                    with workers.agreeing():
                        record |= {"step": done, **measure(done)}
                    model.train()
            if record and workers.is_main:
                if folder:
                    log.add(folder, record)
                if report:
                    report(record)
            if update.is_last or done % train.save_every == 0 or done == train.steps:
                trainer.save()
            if update.is_last:
                raise KeyboardInterrupt
        if interrupt.is_set:
            raise KeyboardInterrupt
    model.eval()
    return Outcome(train.steps, time.monotonic() - began, loss)
