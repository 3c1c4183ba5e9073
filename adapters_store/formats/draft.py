"""A plan in the making: what a foreign folder holds, what is wrong with it, what it becomes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from adapters_store.backbone import BackboneRecord
from adapters_store.errors import IncompatibleError, InvalidArtefactError
from adapters_store.families import load_family
from adapters_store.families.lookup import Lookup, lookup
from adapters_store.families.shapes import BackboneShapes
from adapters_store.formats import as_reason
from adapters_store.formats.inspection import (
    ImportOptions,
    Inspection,
    Piece,
    Plan,
    PlannedArtefact,
    Reason,
    TensorRef,
)
from adapters_store.formats.peft.patterns import Meter
from adapters_store.formats.source import Source
from adapters_store.limits import Limits
from adapters_store.primitives import Part
from adapters_store.tensor_file import StoredTensor

if TYPE_CHECKING:
    import torch

DTYPES = ("F32", "F16", "BF16")
MAX_REASONS = 40


class Draft:
    """Collects reasons, notes, parts and the tensors that they are made of.

    ``tensors`` are those that nothing has explained yet; a planner takes what it understands, and
    what is left when the draft is finished is a reason to reject.
    """

    def __init__(
        self,
        format_name: str,
        source: Source,
        backbone: BackboneRecord,
        options: ImportOptions,
        limits: Limits,
        file: str,
        tensors: Sequence[StoredTensor],
    ) -> None:
        self.format_name = format_name
        self.source = source
        self.backbone = backbone
        self.options = options
        self.limits = limits
        self.file = file
        self.tensors = {tensor.name: tensor for tensor in tensors}
        self.num_tensors = len(tensors)
        self.data_bytes = sum(tensor.end - tensor.begin for tensor in tensors)
        self.meter = Meter()
        self.reasons: list[Reason] = []
        self.notes: list[Reason] = []
        self.parts: list[Part] = []
        self.pieces: list[Piece] = []
        self.paths: dict[str, str] = {}
        self.artefacts: list[PlannedArtefact] = []

    @cached_property
    def shapes(self) -> BackboneShapes:
        """The places of the backbone."""
        return self.backbone.shapes

    @cached_property
    def lookup(self) -> Lookup:
        """The backbone's places by the paths in the file."""
        return lookup(load_family(self.backbone.family), self.backbone.config)

    def reject(self, code: str, message: str, where: str = "") -> None:
        """Add a reason to reject."""
        self.reasons.append(Reason(code, message, where))

    def stop(self) -> None:
        """Give up on the tensors that are left: the reasons so far leave nothing to say of them."""
        self.tensors.clear()

    def drop(self, names: Iterable[str]) -> None:
        """Leave tensors out; a reason says why."""
        for name in names:
            self.tensors.pop(name, None)

    def note(self, code: str, message: str, where: str = "") -> None:
        """Add something that a person should know."""
        self.notes.append(Reason(code, message, where))

    def take(self, name: str, shape: Sequence[int | None] | None = None) -> TensorRef | None:
        """Use a tensor; None, with the reasons, where it is absent or not of the shape.

        ``shape`` holds None where any size but 0 will do.
        """
        tensor = self.tensors.pop(name, None)
        if tensor is None:
            self.reject("missing_tensor", f"tensor {name!r} is absent", name)
            return None
        if tensor.dtype not in DTYPES:
            self.reject("dtype", f"{name!r} is {tensor.dtype}; expected one of {DTYPES}", name)
            return None
        if shape is not None and not _fits(tensor.shape, shape):
            expected = ["any" if size is None else size for size in shape]
            self.reject(
                "shape_mismatch",
                f"{name!r} has shape {list(tensor.shape)}; expected {expected}",
                name,
            )
            return None
        return TensorRef(self.file, name)

    def add(self, part: Part, *pieces: Piece) -> None:
        """Add a part with its tensors; its fit to the backbone is checked here."""
        try:
            part.tensor_specs(self.shapes)
        except (InvalidArtefactError, IncompatibleError) as error:
            reason = as_reason(error)
            self.reject("incompatible", reason.message, reason.where)
            return
        self.parts.append(part)
        self.pieces += pieces

    def finish(self, method: str) -> Plan:
        """The plan; whatever nothing has explained is a reason to reject."""
        for name, tensor in self.tensors.items():
            self.reject(
                "extra_tensor",
                f"nothing in the configuration explains {name!r} ({describe(tensor)})",
                name,
            )
        made = tuple(self.artefacts) or self._adapter()
        parts = tuple(part for artefact in made for part in artefact.parts)
        if not self.reasons and not parts:
            self.reject("missing_tensor", "the adapter holds no tensors", self.file)
        if any(len(artefact.parts) > self.limits.max_parts for artefact in made):
            self.reject("too_large", f"it needs more than {self.limits.max_parts} parts")
        inspection = Inspection(
            source=self.source.location,
            format=self.format_name,
            method=method,
            verdict="reject" if self.reasons else "convert",
            backbone=self.backbone.name,
            reasons=_capped(self.reasons),
            notes=_capped(self.notes),
            parts=() if self.reasons else parts,
            num_tensors=self.num_tensors,
            data_bytes=self.data_bytes,
        )
        return Plan(inspection, () if self.reasons else made)

    def _adapter(self) -> tuple[PlannedArtefact, ...]:
        if not self.parts:
            return ()
        return (
            PlannedArtefact(
                "adapter", tuple(self.parts), tuple(self.pieces), paths=dict(self.paths)
            ),
        )


def describe(tensor: StoredTensor) -> str:
    """Dtype, shape and size of a tensor for a message."""
    return f"{tensor.dtype} {list(tensor.shape)}, {tensor.end - tensor.begin} bytes"


def piece(
    name: str,
    make: Callable[[Sequence[torch.Tensor]], torch.Tensor],
    *sources: TensorRef | None,
) -> Piece:
    """A piece of an artefact; a source that could not be taken has left its reason already."""
    return Piece(name, tuple(source for source in sources if source is not None), make)


def _fits(found: Sequence[int], expected: Sequence[int | None]) -> bool:
    return len(found) == len(expected) and all(
        actual == size if size is not None else actual > 0 for actual, size in zip(found, expected)
    )


def _capped(reasons: Sequence[Reason]) -> tuple[Reason, ...]:
    if len(reasons) <= MAX_REASONS:
        return tuple(reasons)
    more = f"and {len(reasons) - MAX_REASONS} more like these"
    return (*reasons[:MAX_REASONS], Reason(reasons[-1].code, more))
