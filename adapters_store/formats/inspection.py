"""What is said of a foreign adapter before its data is read, and how it would be imported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from adapters_store.signature import Task

if TYPE_CHECKING:
    import torch

    from adapters_store.manifest import Kind, Part

Verdict = Literal["accept", "convert", "reject"]
ROUTED = "POLY"
"""The method of every plan that makes a bank and its tasks."""


@dataclass(frozen=True, slots=True)
class Reason:
    """One finding: a stable ``code`` of :data:`~adapters_store.formats.reasons.REASONS`, a message
    that says what was found and expected, and where (a file, key or tensor)."""

    code: str
    message: str
    where: str = ""

    def as_json(self) -> dict[str, str]:
        """The stable JSON form."""
        return {"code": self.code, "message": self.message, "where": self.where}


@dataclass(frozen=True, slots=True)
class Inspection:
    """The verdict on a source, from its configuration and safetensors header alone.

    ``accept`` is stored as it is, ``convert`` becomes primitives exactly, ``reject`` never
    approximates; ``reasons`` say why it is rejected, ``notes`` what a person should know. ``parts``
    are those of every artefact that the import would make. Sizes are counts and bytes.
    """

    source: str
    format: str
    method: str
    verdict: Verdict
    backbone: str
    reasons: tuple[Reason, ...] = ()
    notes: tuple[Reason, ...] = ()
    parts: tuple[Part, ...] = ()
    num_tensors: int = 0
    data_bytes: int = 0

    def as_json(self) -> dict[str, Any]:
        """The stable JSON form, the same on the command line and over HTTP."""
        return {
            "source": self.source,
            "format": self.format,
            "method": self.method,
            "verdict": self.verdict,
            "backbone": self.backbone,
            "reasons": [reason.as_json() for reason in self.reasons],
            "notes": [note.as_json() for note in self.notes],
            "parts": [part.model_dump(mode="json") for part in self.parts],
            "num_tensors": self.num_tensors,
            "data_bytes": self.data_bytes,
        }


@dataclass(frozen=True, slots=True)
class TensorRef:
    """One tensor of a source: the file and the name inside it."""

    file: str
    name: str


@dataclass(frozen=True, slots=True)
class Piece:
    """One tensor of an artefact: its name, the stored tensors it is made of, and how.

    ``make`` gets them in the order of ``sources`` on the CPU in their stored dtypes.
    """

    name: str
    sources: tuple[TensorRef, ...]
    make: Callable[[Sequence[torch.Tensor]], torch.Tensor]


@dataclass(frozen=True, slots=True)
class PlannedArtefact:
    """One artefact to build. ``suffix`` is appended to the name that a person gives; a routing
    stands behind the bank that it mixes. ``task`` is what the source calls the task, and ``paths``
    keep, by canonical name, what it calls a place."""

    kind: Kind
    parts: tuple[Part, ...]
    pieces: tuple[Piece, ...]
    suffix: str = ""
    labels: tuple[str, ...] = ()
    task: str = ""
    paths: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """An inspection with what an import would build; ``artefacts`` is empty when rejected."""

    inspection: Inspection
    artefacts: tuple[PlannedArtefact, ...] = ()


@dataclass(frozen=True, slots=True)
class ImportOptions:
    """What a source does not say of itself.

    ``task`` None lets the backbone and the head decide; ``labels`` name a head's rows where the
    source does not. ``poly_task`` materialises one task of a Poly checkpoint as a plain adapter;
    None keeps its bank and routing. Limits are in tokens.
    """

    task: Task | None = None
    labels: tuple[str, ...] = ()
    description: str = ""
    prompt_template: str = "{input}"
    max_input_tokens: int = 512
    max_output_tokens: int = 128
    poly_task: int | None = None
    provenance: dict[str, Any] = field(default_factory=dict)
