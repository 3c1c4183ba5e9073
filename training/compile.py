"""Compilation: a trained model as artefacts of primitives. Serving never learns the method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from adapters_store.artefact import Artefact, build_artefact
from adapters_store.backbone import Backbone
from adapters_store.errors import UsageError
from adapters_store.manifest import Example, HeadPart, Part, RoutingPart, TaskSignature
from training.methods.base import BankMethod
from training.model import AdaptedModel
from training.recipe import ObjectiveName
from training.task import Task

_NUM_EXAMPLES = 3


def signature(task: Task, kind: ObjectiveName, limits: tuple[int, int]) -> TaskSignature:
    """What the task takes and gives; ``limits`` are the input's and output's tokens.

    A task of choices is served as text: its labels are the choices, where all rows have the same.
    """
    rows = (task.dev or task.train)[:_NUM_EXAMPLES]
    return TaskSignature(
        task="text2text" if kind == "choice" else kind,
        labels=task.labels or task.common_choices,
        description=task.description,
        examples=tuple(Example(input=row.input, output=row.output) for row in rows),
        max_input_tokens=limits[0],
        max_output_tokens=max(1, limits[1]),
    )


def bank_sites(model: AdaptedModel) -> dict[str, BankMethod]:
    """The sites whose method mixes a bank; empty for a method without one."""
    found = model.site_methods().items()
    return {name: method for name, method in found if isinstance(method, BankMethod)}


def compile_bank(
    model: AdaptedModel, backbone: Backbone, provenance: Mapping[str, Any] | None = None
) -> Artefact:
    """The skills that all tasks share; raises :class:`UsageError` for a method without a bank."""
    methods = bank_sites(model)
    if not methods:
        raise UsageError("this run has no bank: its method keeps no shared skills")
    compiled = [method.compile_bank() for method in methods.values()]
    return build_artefact(
        kind="bank",
        backbone=backbone,
        parts=[part for part, _ in compiled],
        tensors=_merged([tensors for _, tensors in compiled]),
        provenance=provenance,
    )


def compile_task(
    model: AdaptedModel,
    task: int,
    backbone: Backbone,
    about: TaskSignature,
    *,
    bank: Artefact | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Artefact:
    """Task ``task``: its routing over ``bank`` when one is given, else exact ``low_rank`` parts.

    A classification task brings its head in both forms.
    """
    parts, tensors = _routing(model, task) if bank else _low_rank(model, task)
    if model.heads:
        weight, bias = model.head(task).weight, model.head(task).bias
        parts = [*parts, HeadPart(num_labels=len(bias), pooling="mean")]
        tensors |= {"head/weight": weight, "head/bias": bias}
    return build_artefact(
        kind="routing" if bank else "adapter",
        backbone=backbone,
        parts=parts,
        tensors=tensors,
        signature=about,
        bank=bank.digest if bank else None,
        provenance=provenance,
    )


def _low_rank(model: AdaptedModel, task: int) -> tuple[list[Part], dict[str, torch.Tensor]]:
    compiled = [method.compile_task(task) for method in model.site_methods().values()]
    return [part for part, _ in compiled], _merged([tensors for _, tensors in compiled])


@torch.no_grad()
def _routing(model: AdaptedModel, task: int) -> tuple[list[Part], dict[str, torch.Tensor]]:
    methods = bank_sites(model)
    weights = torch.cat([m.weights(torch.tensor([task])) for m in methods.values()])
    logits = torch.stack([method.logits[task] for method in methods.values()])
    _, num_heads, num_skills = weights.shape
    part = RoutingPart(sites=tuple(methods), num_skills=num_skills, num_heads=num_heads)
    return [part], {"routing/weights": weights, "routing/logits": logits}


def _merged(parts: Sequence[Mapping[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return {name: tensor for tensors in parts for name, tensor in tensors.items()}
