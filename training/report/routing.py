"""What a run's page shows of its routing: numbers, skills by task, tasks by likeness."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from adapters_store.lazy import resolve
from training import checkpoint
from training.methods.routing import GATES
from training.report import pictures
from training.report.html import cut, table
from training.report.statistics import (
    Array,
    average_linkage,
    leaf_order,
    router_statistics,
    skill_shares,
)
from training.run import read_recipe, task_names

MAX_TASKS = 200
MAX_ROUTERS = 500


def read_logits(folder: Path) -> tuple[list[str], list[str], Array] | None:
    """Task names, router names and logits (T, S, H, K) of a run that routes; None for others."""
    if checkpoint.latest_step(folder) is None:
        return None
    recipe, ending = read_recipe(folder), ".method.router.logits"
    weights = {
        name.removesuffix(ending).removeprefix("model."): tensor
        for name, tensor in checkpoint.stored_weights(folder, recipe.train.keep).items()
        if name.endswith(ending)
    }
    if not weights:
        return None
    stacked = np.stack([tensor.double().numpy() for tensor in weights.values()], axis=1)
    names = task_names(folder) or [f"task {index}" for index in range(len(stacked))]
    return names, list(weights), stacked


def sections(
    names: list[str], routers: list[str], logits_TSHK: Array, gate: str
) -> list[tuple[str, str]]:
    """Titles and HTML. Numbers are over all tasks; pictures say where they leave some out."""
    logits = torch.from_numpy(logits_TSHK)
    weights: Array = resolve(GATES, gate, "routing gate")(logits, False).numpy()
    found = router_statistics(weights if gate == "softmax" else torch.sigmoid(logits).numpy())
    skills = [str(skill) for skill in range(weights.shape[-1])]
    numbers = table(
        [
            ("discreteness", f"{found.discreteness:.3f}", "0: gates on or off; 1: undecided"),
            ("sparsity", f"{found.sparsity:.3f}", "share of gates that round to 1"),
            ("usage", f"{found.usage:.3f}", "1: all skills carry the same weight"),
        ]
    )
    usage = pictures.bars(skill_shares(weights), skills, "Share of each skill in all routing")
    shown, few = names[:MAX_TASKS], weights[:MAX_TASKS]
    left_out = cut(len(shown), len(names), "tasks, the first ones of the run")
    merges = average_linkage(few.reshape(len(shown), -1) - few.mean())
    order = leaf_order(merges, len(shown))
    heat = pictures.heat_map(
        few.mean((1, 2))[order],
        [shown[index] for index in order],
        skills,
        "Mean weight of each skill by task",
    )
    tree = pictures.dendrogram(merges, shown, "Tasks by the distance of their routing")
    by_router = pictures.heat_map(
        weights.mean((0, 2))[:MAX_ROUTERS],
        routers[:MAX_ROUTERS],
        skills,
        "Mean weight of each skill by router",
    )
    fewer = cut(min(len(routers), MAX_ROUTERS), len(routers), "routers, the first ones")
    return [
        ("Routing", numbers + usage + left_out + heat),
        ("Which tasks route alike", left_out + tree),
        ("Use of skills by router", fewer + by_router),
    ]
