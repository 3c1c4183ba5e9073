"""What two workers do together: `torchrun --nproc-per-node 2 two_workers.py OUT`.

Every scenario leaves a run's folder, or a line of what a worker raised, under OUT, which holds a
tiny BERT.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from training_kit import opinion_task, tiny_recipe

from adapters_store.errors import PatchbayError
from training.recipe import BackboneSection, MethodSection, Recipe, TasksSection, TrainSection
from training.run import Run, train_recipe
from training.suite import Example
from training.task import Task
from training.workers import Workers


def uneven_recipe(**train: object) -> Recipe:
    """Seven rows a step: four for one worker and three for the other."""
    return tiny_recipe(**{"steps": 4, "rows_per_step": 7, "eval_every": 2} | train)


def gated_recipe() -> Recipe:
    """A frozen backbone under a gate that draws random numbers."""
    recipe = uneven_recipe()
    method = recipe.method.model_copy(update={"gate": "relaxed_bernoulli"})
    backbone = recipe.backbone.model_copy(update={"is_trained": False})
    return recipe.model_copy(update={"method": method, "backbone": backbone})


def headed_run(bert: Path) -> Run:
    """Two rows a step of four tasks, each with a head and a private LoRA of its own."""
    opinion = opinion_task()
    tasks = [
        Task(f"{opinion.name}-{index}", opinion.train, opinion.dev, labels=opinion.labels)
        for index in range(4)
    ]
    recipe = Recipe(
        name="heads",
        objective="classification",
        backbone=BackboneSection(source=str(bert)),
        method=MethodSection(name="lora", rank=2, is_private=True),
        train=TrainSection(steps=6, rows_per_step=2, log_every=1, seed=1),
    )
    return Run.build(recipe, tasks)


def narrowed_run(is_long_in: str) -> Run:
    """One example over a limit that is set only after all were found to be inside one."""
    recipe = uneven_recipe(steps=8).model_copy(update={"max_input_tokens": 512})
    short = [Example("x" * 9, "y")] * (7 * 4)
    long = Example("x" * 400, "y")
    train = [*short[1:], long] if is_long_in == "train" else short
    dev = [long] if is_long_in == "dev" else short[:1]
    run = Run.build(recipe, [Task("first", train, short[:1]), Task("second", short, dev)])
    run.objective.max_input_tokens = 128
    return run


def torn_run(path: Path, rank: int) -> Run:
    """A run over a file of the worker's own, which rank 1 loses after it was read."""
    rows = ({"task": "t", "input": f"row {n}", "output": "y"} for n in range(60))
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    tasks = TasksSection(source="jsonl", path=str(path))
    run = Run.build(uneven_recipe(eval_every=None).model_copy(update={"tasks": tasks}))
    if rank == 1:
        path.write_text("")
    return run


def main(out: Path) -> None:
    """Every scenario, one after the other."""
    torch.set_num_threads(1)
    with Workers.joined() as workers:
        told = out / f"told-{workers.rank}.txt"

        def raised(run: Callable[[], object]) -> None:
            try:
                run()
            except (PatchbayError, KeyboardInterrupt) as error:
                with told.open("a") as file:
                    file.write(f"{type(error).__name__} {error}\n")

        for name, recipe in {
            "straight": uneven_recipe(),
            "accumulated": uneven_recipe(rows_per_device=2),
            "gated": gated_recipe(),
        }.items():
            train_recipe(recipe, out / name, workers)
        headed_run(out / "bert").train(out / "heads", workers=workers)

        asked = [workers.rank == 1 and step == 2 for step in range(4)]
        stop = iter(asked).__next__
        recipe = uneven_recipe()
        raised(lambda: train_recipe(recipe, out / "halted", workers, is_asked_to_stop=stop))
        train_recipe(recipe, out / "halted", workers)

        raised(lambda: narrowed_run(is_long_in="train").train(out / "long", workers=workers))
        raised(lambda: narrowed_run(is_long_in="dev").train(out / "dev", workers=workers))
        differing = tiny_recipe(seed=3 + workers.rank)
        tasks = differing.tasks.model_copy(update={"seed": workers.rank})
        differing = differing.model_copy(update={"tasks": tasks})
        raised(lambda: train_recipe(differing, out / "differing", workers))
        apart = out / ("straight" if workers.is_main else "apart")
        raised(lambda: train_recipe(recipe, apart, workers))
        own = out / f"rows-{workers.rank}.jsonl"
        raised(lambda: torn_run(own, workers.rank).train(out / "torn", workers=workers))
        few = uneven_recipe(rows_per_step=1)
        raised(lambda: train_recipe(few, out / "few", workers))
        unread = recipe.model_copy(update={"objective": "classification"})
        raised(lambda: train_recipe(unread, out / "unread", workers))
        precise = Workers("bf16")
        train_recipe(uneven_recipe(mixed_precision="bf16"), out / "bf16", precise)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
