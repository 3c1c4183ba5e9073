"""A model with one artefact's effects installed, and exactly as it was afterwards."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch

from adapters_store.artefact import Artefact, load_tensors
from adapters_store.backbone import Backbone
from adapters_store.errors import UsageError
from adapters_store.lazy import resolve
from adapters_store.primitives import Part
from adapters_store.validation import validate
from training.reference import head
from training.reference.stage import Stage

REFERENCES: dict[str, str] = {
    "low_rank": "training.reference.low_rank:install",
    "mixture": "training.reference.mixture:install",
    "routing": "training.reference.routing:install",
    "scale": "training.reference.scale:install",
    "bottleneck": "training.reference.bottleneck:install",
    "prefix": "training.reference.prefix:install",
    "prompt": "training.reference.prompt:install",
    "override": "training.reference.override:install",
    "head": "training.reference.head:install",
}
"""How each primitive takes effect. Installed in this order, effects of one place run in it."""


class Adapted:
    """A transformers model while an artefact is applied to all rows of its batches."""

    def __init__(self, model: Any, stage: Stage) -> None:
        self.model = model
        self._stage = stage

    @property
    def prompt_rows(self) -> dict[str, int]:
        """How many rows of a prompt stand before the tokens in a stack's outputs, by stack."""
        return dict(self._stage.prompt_rows)

    def __call__(self, **inputs: Any) -> Any:
        """The model's forward; hidden states and logits carry the rows of a prompt in front."""
        return self.model(**inputs)

    def generate(self, **inputs: Any) -> Any:
        """What the model's own ``generate`` gives, greedy unless ``inputs`` say otherwise.

        Positions, masks and the cache account for prefixes and prompts.
        """
        return self.model.generate(**{"do_sample": False, "num_beams": 1, **inputs})

    def head(self, outputs: Any, attention_mask: torch.Tensor) -> torch.Tensor:
        """Logits (R, labels) of the artefact's head; ``attention_mask`` (R, T) covers the tokens.

        ``outputs`` is the last hidden state or an output of the model that holds it. Raises
        UsageError where the artefact has no head or ``outputs`` no last hidden state.
        """
        hidden = outputs
        if not isinstance(outputs, torch.Tensor):
            hidden = getattr(outputs, "last_hidden_state", None)
            if hidden is None:
                raise UsageError(f"a {type(outputs).__name__} has no last_hidden_state to pool")
        return head.logits(self._stage, hidden, attention_mask)


@contextmanager
def applied(
    model: Any, backbone: Backbone, artefact: Artefact, bank: Artefact | None = None
) -> Iterator[Adapted]:
    """Apply an adapter or a routing (with its ``bank``) to ``model`` inside a with block.

    ``model`` is any transformers model of ``backbone``, in evaluation mode. Artefacts are validated
    first; effects are hooks and stand-in parameters, all undone at the end, so that the model is
    what it was. Blocks may be nested where their artefacts do not want the same prefix or
    prompt. Raises UsageError for a bank or a model in training mode, and what
    :func:`~adapters_store.validation.validate` raises.
    """
    manifest = artefact.manifest
    if manifest.kind == "bank":
        raise UsageError("a bank is no task: give a routing or an adapter")
    if model.training:
        raise UsageError("the model is in training mode", hint="Call model.eval() first.")
    if bank is not None:
        validate(bank, backbone.record)
    validate(artefact, backbone.record, None if bank is None else bank.manifest)
    of_primitive: dict[str, list[Part]] = defaultdict(list)
    for part in manifest.parts:
        of_primitive[part.primitive].append(part)
    with ExitStack() as undo:
        stage = Stage(
            model=model,
            shapes=backbone.shapes,
            tensors=_tensors(artefact, model),
            undo=undo,
            bank=None if bank is None else bank.manifest,
            bank_tensors={} if bank is None else _tensors(bank, model),
        )
        for primitive in REFERENCES:
            if parts := of_primitive.pop(primitive, None):
                resolve(REFERENCES, primitive, "reference")(parts, stage)
        assert not of_primitive, "the tables of primitives and references have the same rows"
        yield Adapted(model, stage)


def _tensors(artefact: Artefact, model: Any) -> dict[str, torch.Tensor]:
    return {
        name: tensor.to(model.device, model.dtype)
        for name, tensor in load_tensors(artefact).items()
    }
