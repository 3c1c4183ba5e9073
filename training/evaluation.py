"""Scoring a task's predictions, one number per example and their mean."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from adapters_store.artefact import Artefact
from adapters_store.backbone import Backbone
from adapters_store.errors import UsageError
from training import backbones
from training.metrics import scores
from training.objectives import build_objective
from training.objectives.base import Answering, Objective
from training.recipe import BackboneSection, ObjectiveName
from training.reference import Adapted, applied
from training.suite.task import Example

_BATCH = 64


def predictions(
    model: Answering, objective: Objective, task: int, examples: Sequence[Example]
) -> list[str]:
    """The model's outputs in the order of the examples; rows of like length share a batch."""
    order = sorted(range(len(examples)), key=lambda index: len(examples[index].input))
    found: dict[int, str] = {}
    for start in range(0, len(order), _BATCH):
        part = order[start : start + _BATCH]
        outputs = objective.predict(model, task, [examples[index] for index in part])
        found.update(zip(part, outputs, strict=True))
    return [found[index] for index in range(len(examples))]


def accuracy(
    model: Answering,
    objective: Objective,
    task: int,
    examples: Sequence[Example],
    metric: str = "exact_match",
) -> float:
    """The mean score of the examples; by default the share that is accepted to the letter.

    Raises UsageError for no examples, which have no mean.
    """
    if not examples:
        raise UsageError("there are no examples to score")
    found = scores(metric, predictions(model, objective, task, examples), examples)
    return sum(found) / len(found)


def artefact_accuracy(
    folder: Path,
    artefact: Artefact,
    bank: Artefact | None,
    examples: Sequence[Example],
    metric: str = "exact_match",
) -> float:
    """The mean score of an artefact on the backbone in ``folder``; raises as its outputs do."""
    found = scores(metric, artefact_outputs(folder, artefact, bank, examples), examples)
    return sum(found) / len(found)


def artefact_outputs(
    folder: Path,
    artefact: Artefact,
    bank: Artefact | None,
    examples: Sequence[Example],
    objective: ObjectiveName | None = None,
) -> list[str]:
    """What an artefact answers on the backbone in ``folder``, under its own signature.

    The reference computes the answers, whatever the artefact's parts. ``objective`` says how: by
    default as the artefact was trained, so that a task of choices is ranked; ``text2text`` has it
    write freely, as a server does. Raises UsageError for no examples, for a bank, and where the
    artefact's task cannot be asked so.
    """
    if not examples:
        raise UsageError("there are no examples to score")
    about = artefact.manifest.signature
    if about is None or about.task == "embedding":
        what = artefact.manifest.kind if about is None else "task that gives embeddings"
        raise UsageError(f"a {what} has no outputs to score")
    if objective is None:
        is_choice = artefact.manifest.provenance.get("objective") == "choice"
        objective = "choice" if is_choice else about.task
    elif (objective == "classification") != (about.task == "classification"):
        raise UsageError(f"a task of type {about.task!r} is not scored as {objective!r}")
    section = BackboneSection(source=str(folder))
    model = backbones.load_model(section, about.task).eval()
    built = build_objective(
        objective,
        model,
        backbones.load_tokenizer(section),
        max_input_tokens=about.max_input_tokens,
        max_output_tokens=about.max_output_tokens,
        labels=[about.labels],
    )
    with applied(model, Backbone.from_folder(folder), artefact, bank) as adapted:
        return predictions(OneTask(adapted), built, 0, examples)


@dataclass(frozen=True)
class OneTask:
    """The reference forward of one artefact, as objectives ask it: every row is of its task."""

    adapted: Adapted

    def parameters(self) -> Iterator[torch.nn.Parameter]:
        """The backbone's parameters."""
        found: Iterator[torch.nn.Parameter] = self.adapted.model.parameters()
        return found

    def __call__(self, task_of_row: torch.Tensor, **inputs: Any) -> Any:
        """The adapted forward."""
        return self.adapted(**inputs)

    def encode(self, task_of_row: torch.Tensor, **inputs: Any) -> Any:
        """The adapted encoder's forward."""
        return self.adapted.model.get_encoder()(**inputs)

    def generate(self, task_of_row: torch.Tensor, **inputs: Any) -> torch.Tensor:
        """Greedy token ids (R, T) without start token or prompt."""
        ids: torch.Tensor = self.adapted.generate(**inputs)
        is_seq2seq = self.adapted.model.config.is_encoder_decoder
        return ids[:, 1 if is_seq2seq else inputs["input_ids"].shape[1] :]

    def label_logits(
        self, task: int, hidden: torch.Tensor, attention_mask: torch.Tensor
    ) -> torch.Tensor:
        """Logits (R, labels) of the artefact's head, with its own pooling."""
        return self.adapted.head(hidden, attention_mask)
