"""What the ``textcls`` arms start from: two banks and one shared LoRA over the training tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from benchmarks import textcls_data as data
from training.checkpoint import load_weights, stored_weights
from training.recipe import BackboneSection, MethodSection, Recipe, TrainSection
from training.run import Run
from training.task import Task

RANK = 4
STEPS = 400
METHODS = {
    "mhr": MethodSection(name="mhr", rank=RANK, num_skills=8, num_heads=8),
    "lora": MethodSection(name="lora", rank=RANK),
    "poly": MethodSection(name="poly", rank=RANK, num_skills=8),
}


def recipe(method: str, steps: int = STEPS) -> Recipe:
    """The run that learns ``method`` on all training tasks at every linear site."""
    return Recipe(
        name=f"textcls-{method}",
        objective="classification",
        max_input_tokens=data.MAX_TOKENS,
        backbone=BackboneSection(source=str(data.backbone_folder())),
        method=METHODS[method],
        train=TrainSection(
            steps=steps,
            rows_per_step=20,
            learning_rate=2e-3,
            router_learning_rate=0.03,
            log_every=20,
            save_every=100,
        ),
    )


def trained(method: str, tasks: Sequence[Task], folder: Path, steps: int = STEPS) -> Run:
    """The finished run of ``method``; trains it first, or goes on, where it is not finished."""
    run = Run.build(recipe(method, steps), list(tasks))
    if (folder / "outcome.json").exists():
        load_weights(run.model, stored_weights(folder))
        run.model.eval()
    else:
        run.train(folder, report=lambda record: print(method, record, flush=True))
    return run
