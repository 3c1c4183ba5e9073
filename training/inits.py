"""How a new task's routing starts: at the uniform mix, as the paper does, or near seen tasks.

A lazy table from name to a function that gives first logits (S, H, K) from the seen tasks'. Legend:
N neighbours, S sites, H heads, K skills.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch.nn.functional import cosine_similarity

from adapters_store.artefact import Artefact
from adapters_store.errors import UsageError
from adapters_store.lazy import resolve
from training.compile import bank_sites
from training.methods.routing import Router
from training.model import AdaptedModel
from training.objectives.base import Objective
from training.restore import read_logits
from training.suite.task import Example
from training.task import Task

Init = Literal["auto", "uniform", "nearest", "blend", "gradient", "embedding"]
NUM_SCORED = 4
NUM_EMBEDDED = 16
_BLEND_TEMPERATURE = 0.1

INITS: dict[str, str] = {
    "nearest": "training.inits:nearest",
    "blend": "training.inits:blend",
    "gradient": "training.inits:along_gradient",
    "embedding": "training.inits:by_embedding",
}


@dataclass(frozen=True, slots=True)
class Newcomer:
    """A task at the uniform mix of a bank, the seen routings and their logits (N, S, H, K)."""

    model: AdaptedModel
    objective: Objective
    task: Task
    neighbours: Sequence[Artefact]
    logits: torch.Tensor

    def loss(self) -> torch.Tensor:
        """The loss of the first few training examples under the present routing."""
        rows = [(0, example) for example in self.task.train[:NUM_SCORED]]
        if self.model.heads:
            raise UsageError("this start compares losses, which a fresh head does not have")
        return self.objective.loss(self.model, self.objective.collate(rows))


Start = Callable[[Newcomer], torch.Tensor]


def choose_routing(
    model: AdaptedModel,
    objective: Objective,
    task: Task,
    init: Init,
    bank: Artefact,
    neighbours: Sequence[Artefact],
) -> None:
    """Set task 0's logits; ``neighbours`` are routings of seen tasks over ``bank``.

    ``uniform`` keeps the draw around zero; ``auto`` is ``blend`` where there are neighbours whose
    losses can be compared, else ``uniform``. Raises UsageError where a start needs neighbours,
    losses or examples that there are none of.
    """
    if init == "uniform" or (init == "auto" and (model.heads or not neighbours)):
        return
    name = "blend" if init == "auto" else init
    function: Start = resolve(INITS, name, "routing start")
    if not neighbours:
        raise UsageError(f"init {init!r} needs the routings of seen tasks; none is given")
    logits = torch.stack([read_logits(artefact, bank) for artefact in neighbours])
    model.eval()  # a gate that draws numbers would compare neighbours under different ones
    _set_logits(model, function(Newcomer(model, objective, task, neighbours, logits)))


def nearest(new: Newcomer) -> torch.Tensor:
    """The neighbour under whose routing the examples have the least loss."""
    return new.logits[_losses(new).argmin()]


def blend(new: Newcomer) -> torch.Tensor:
    """All neighbours' logits, weighted by softmax(-loss / 0.1)."""
    shares = torch.softmax(-_losses(new) / _BLEND_TEMPERATURE, 0)
    return torch.einsum("n,nshk->shk", shares, new.logits)


def along_gradient(new: Newcomer) -> torch.Tensor:
    """The neighbour whose logits, less the mean of all, point most along the loss's descent.

    One backward pass at the uniform mix, whatever the number of neighbours.
    """
    logits = [method.logits for method in bank_sites(new.model).values()]
    with torch.enable_grad():
        gradients = torch.autograd.grad(new.loss(), logits)
    descent = -torch.stack([gradient[0] for gradient in gradients]).flatten()
    offsets = (new.logits - new.logits.mean(0)).flatten(1)
    return new.logits[cosine_similarity(offsets, descent[None], dim=1).argmax()]


@torch.no_grad()
def by_embedding(new: Newcomer) -> torch.Tensor:
    """The neighbour whose published examples read most like the task's inputs.

    Inputs are compared by the mean of the last states under the uniform mix, the encoder's if there
    is one; a neighbour without examples in its signature is passed over.
    """
    own = _embedded(new, new.task.train[:NUM_EMBEDDED])
    scores = torch.full((len(new.neighbours),), -torch.inf)
    for index, artefact in enumerate(new.neighbours):
        about = artefact.manifest.signature
        if about is not None and about.examples:
            examples = [Example(example.input, example.output) for example in about.examples]
            scores[index] = cosine_similarity(own, _embedded(new, examples), dim=0)
    if torch.isneginf(scores).all():
        raise UsageError("init 'embedding' needs neighbours with examples; none has any")
    return new.logits[scores.argmax()]


@torch.no_grad()
def _losses(new: Newcomer) -> torch.Tensor:
    losses = []
    for logits in new.logits:
        _set_logits(new.model, logits)
        losses.append(new.loss())
    return torch.stack(losses)


def _embedded(new: Newcomer, examples: Sequence[Example]) -> torch.Tensor:
    """The mean over the examples of their mean encoder state (D,)."""
    model = new.model
    batch = new.objective.collate([(0, _answered(new.task, example)) for example in examples])
    inputs = {key: batch[key].flatten(0, -2) for key in ("input_ids", "attention_mask")}
    if model.model.config.is_encoder_decoder:
        outputs = model.encode(batch["task_of_row"], **inputs)
    else:
        model.context.set(batch["task_of_row"])
        outputs = model.model.base_model(**inputs)
    hidden = outputs.last_hidden_state
    mask = inputs["attention_mask"].unsqueeze(-1).to(hidden.dtype)
    return torch.as_tensor(((hidden * mask).sum(1) / mask.sum(1)).mean(0))


def _answered(task: Task, example: Example) -> Example:
    """The example with an answer that the task's objective can read: only its input matters."""
    return replace(task.train[0], input=example.input)


@torch.no_grad()
def _set_logits(model: AdaptedModel, logits_SHK: torch.Tensor) -> None:
    """Every router's logits, as the mean over the sites that it serves."""
    of_router: dict[Router, list[torch.Tensor]] = defaultdict(list)
    for method, logits in zip(bank_sites(model).values(), logits_SHK, strict=True):
        of_router[method.router].append(logits)
    for router, found in of_router.items():
        router.logits[0] = torch.stack(found).mean(0)
