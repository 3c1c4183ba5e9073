"""What the ``textcls`` benchmark trains: sources on 12 tasks, arms on five few-shot ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from benchmarks import textcls_data as data
from benchmarks.arms import ARMS, pretraining
from benchmarks.few_shot import Comparison
from training.adapt import AdaptConfig
from training.recipe import BackboneSection, Recipe, TrainSection
from training.task import Task

RANK, STEPS = 4, 200
FEW_STEPS, MANY_STEPS = 16, 50
NUM_SELECT, NUM_TEST = 32, 100
IA3_RATE = 10.0
"""By training loss after 30 steps: 1.09 at ten times the others' rate, 1.12 at thirty times."""
RATES = {"ia3": IA3_RATE}
METHODS = pretraining(RANK, 8, 8, ("all",), has_cross=False)
FEW_ARMS = tuple(replace(arm, rate=IA3_RATE) if arm.mode == "ia3" else arm for arm in ARMS)
SERVED_ARM = next(arm for arm in FEW_ARMS if arm.name == "MHR-z")
MANY_ARMS = tuple(
    arm
    for arm in FEW_ARMS
    if arm.name in ("private LoRA", "shared LoRA", "Poly", "MHR-z", "MHR-mu", "MHR")
)


def recipe(steps: int) -> Recipe:
    """The pretraining that every source shares but for its method, at every linear site."""
    return Recipe(
        name="textcls",
        objective="classification",
        max_input_tokens=data.MAX_TOKENS,
        backbone=BackboneSection(source=str(data.backbone_folder())),
        train=TrainSection(
            steps=steps,
            rows_per_step=20,
            learning_rate=2e-3,
            router_learning_rate=0.03,
            log_every=20,
            save_every=100,
        ),
    )


def comparison(steps: int, seeds: int, *, is_few: bool) -> Comparison:
    """The optimisation, the same for every arm but for what is trained and IA3's rate."""
    config = AdaptConfig(
        init="uniform",
        steps=steps,
        rows_per_step=8,
        learning_rate=5e-3,
        router_learning_rate=0.1,
        eval_every=max(1, steps // 2),
        eval_examples=NUM_SELECT,
        rank=RANK,
        max_input_tokens=data.MAX_TOKENS,
        max_output_tokens=1,
    )
    arms, kept = (FEW_ARMS, (SERVED_ARM,)) if is_few else (MANY_ARMS, ())
    return Comparison(config, ("exact_match",), seeds, arms, kept)


def drawing(tasks: list[Task], num_examples: int | None) -> Callable[[str, int], Task]:
    """Draws a task's training examples by seed, all for None; test is cut to its first rows."""
    by_name = {task.name: task for task in tasks}

    def draw(name: str, seed: int) -> Task:
        task = by_name[name]
        examples = data.draw(task, num_examples, seed)
        return replace(task, train=examples, test=task.test[:NUM_TEST])

    return draw
