"""The training loop: one readable pass over steps, with logging, checkpoints and exact resume."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from adapters_store.errors import TrainingError
from training import checkpoint
from training.model import AdaptedModel
from training.objectives.base import Objective
from training.recipe import TrainSection
from training.sampler import TaskBalancedSampler

Report = Callable[[dict[str, Any]], None]


def parameter_groups(model: AdaptedModel, train: TrainSection) -> list[dict[str, Any]]:
    """Router logits, adapters and heads, and the backbone, each with its own learning rate.

    The router takes no weight decay: decay would pull every task to the uniform mix.
    """
    groups: dict[str, list[torch.nn.Parameter]] = {"router": [], "adapter": [], "backbone": []}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        if name.endswith(".logits"):
            groups["router"].append(parameter)
        elif ".method." in name or name.startswith("heads."):
            groups["adapter"].append(parameter)
        else:
            groups["backbone"].append(parameter)
    rates = {
        "router": (train.router_learning_rate, 0.0),
        "adapter": (train.learning_rate, train.weight_decay),
        "backbone": (train.backbone_learning_rate, train.weight_decay),
    }
    return [
        {"params": found, "lr": rates[name][0], "weight_decay": rates[name][1], "group": name}
        for name, found in groups.items()
        if found
    ]


def schedule(train: TrainSection) -> Callable[[int], float]:
    """Linear warm-up from zero, then linear decay to zero at the last step."""
    warmup = max(1, round(train.steps * train.warmup_ratio))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return max(0.0, (train.steps - step) / max(1, train.steps - warmup))

    return factor


@dataclass
class Outcome:
    """What a finished run can say of itself: steps done, seconds spent, last mean loss."""

    steps: int
    seconds: float
    loss: float


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

    Writes ``log.jsonl`` and ``checkpoint/`` into ``folder``. Raises :class:`TrainingError` with
    the step, the tasks and the last good checkpoint when the loss is not finite.
    """
    accelerator = Accelerator(mixed_precision=train.mixed_precision)
    optimizer = torch.optim.AdamW(parameter_groups(model, train), fused=True)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule(train))
    model, optimizer, scheduler = accelerator.prepare(model, optimizer, scheduler)
    trained = [p for p in model.parameters() if p.requires_grad]
    start = checkpoint.resume(folder, model, optimizer, scheduler) if folder else 0
    model.train()
    began, window, loss_value = time.monotonic(), [], math.nan
    for step in range(start, train.steps):
        rows = sampler.batch(step)
        batch = {k: v.to(accelerator.device) for k, v in objective.collate(rows).items()}
        with accelerator.autocast():
            loss = objective.loss(model, batch)
        loss_value = float(loss.detach())
        if not math.isfinite(loss_value):
            names = sorted({sampler.tasks[task].name for task, _ in rows})
            kept = checkpoint.latest_step(folder) if folder else None
            raise TrainingError(
                f"loss is {loss_value} at step {step} (tasks {', '.join(names)}); last good "
                f"checkpoint: {'none' if kept is None else f'step {kept}'}",
                hint="Lower the learning rate, then resume from the checkpoint.",
            )
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_(trained, train.max_grad_norm)
        optimizer.step()
        scheduler.step()
        optimizer.zero_grad()
        window.append(loss_value)
        done = step + 1
        record: dict[str, Any] = {}
        if done % train.log_every == 0 or done == train.steps:
            record = {
                "step": done,
                "loss": sum(window) / len(window),
                "grad_norm": float(norm),
                "seconds": round(time.monotonic() - began, 3),
            }
            window = []
        if evaluate and train.eval_every and done % train.eval_every == 0:
            model.eval()
            record |= {"step": done, **evaluate(done)}
            model.train()
        if record:
            _log(folder, record)
            if report:
                report(record)
        if folder and (done % train.save_every == 0 or done == train.steps):
            checkpoint.save(folder, done, model, optimizer, scheduler)
    model.eval()
    return Outcome(train.steps, time.monotonic() - began, loss_value)


def _log(folder: Path | None, record: dict[str, Any]) -> None:
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")
