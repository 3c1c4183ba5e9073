"""Gradient alignment: how far the tasks of a batch pull shared parameters the same way.

For every task the gradient of its own loss; the measure is the mean cosine over pairs of tasks.
``shared`` looks at the parameters that tasks share: a LoRA's factors, a bank's skills, where task
t's gradient is scaled by its routing weights. ``composed`` looks at the factors or scales that the
task's rows see, whatever they are made of, and so compares methods on the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from adapters_store.errors import UsageError
from training.model import AdaptedModel
from training.objectives.base import Objective, Row
from training.task import Task


@dataclass(frozen=True, slots=True)
class Alignment:
    """Mean pairwise cosines, from -1 to 1, and the cosines of every pair of tasks.

    ``pairs`` and ``composed_pairs`` (N, N) go by the order of the tasks.
    """

    shared: float
    composed: float
    pairs: torch.Tensor
    composed_pairs: torch.Tensor


def gradient_alignment(
    model: AdaptedModel, objective: Objective, rows_of_task: Sequence[Sequence[Row]]
) -> Alignment:
    """Measure on one group of rows per task; the model's own gradients are left as they were.

    Raises :class:`UsageError` for fewer than two tasks or a method that trains nothing shared.
    """
    if len(rows_of_task) < 2:
        raise UsageError(f"alignment compares tasks; found {len(rows_of_task)}")
    shared = shared_parameters(model)
    device = shared[0].device
    by_shared, by_composed = [], []
    for rows in rows_of_task:
        batch = {key: value.to(device) for key, value in objective.collate(rows).items()}
        with model.context.recording() as effects:
            loss = objective.loss(model, batch)
        composed = [t for e in effects.values() for t in e if isinstance(t, torch.Tensor)]
        gradients = torch.autograd.grad(loss, [*shared, *composed], allow_unused=True)
        by_shared.append(_flat(gradients[: len(shared)], shared))
        by_composed.append(_flat(gradients[len(shared) :], composed))
    pairs, composed_pairs = (_cosines(torch.stack(rows)) for rows in (by_shared, by_composed))
    return Alignment(
        _mean_off_diagonal(pairs), _mean_off_diagonal(composed_pairs), pairs, composed_pairs
    )


def shared_parameters(model: AdaptedModel) -> list[torch.nn.Parameter]:
    """What tasks train together: factors and scales, not routing; UsageError where there is none.

    A method with an adapter of its own for each task shares nothing that could be aligned.
    """
    shared = [
        parameter
        for name, parameter in model.named_parameters()
        if ".method." in name and not name.endswith(".logits") and parameter.requires_grad
    ]
    private = [m for m in model.site_methods().values() if getattr(m, "is_private", False)]
    if not shared or private:
        raise UsageError("alignment needs trained parameters that tasks share; the method has none")
    return shared


def fixed_probe(tasks: Sequence[Task], num_tasks: int, num_rows: int) -> list[list[Row]]:
    """The first training rows of some tasks, spread evenly over all: the same at every call."""
    count = min(num_tasks, len(tasks))
    chosen = [index * len(tasks) // count for index in range(count)]
    return [[(t, example) for example in tasks[t].train[:num_rows]] for t in chosen]


def _flat(gradients: Sequence[torch.Tensor | None], like: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat(
        [
            (torch.zeros_like(tensor) if gradient is None else gradient).flatten()
            for gradient, tensor in zip(gradients, like, strict=True)
        ]
    )


def _cosines(rows: torch.Tensor) -> torch.Tensor:
    unit = torch.nn.functional.normalize(rows, dim=-1)
    return unit @ unit.T


def _mean_off_diagonal(square: torch.Tensor) -> float:
    number = len(square)
    return float((square.sum() - square.diagonal().sum()) / (number * (number - 1)))
