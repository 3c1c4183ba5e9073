"""Carrying out a plan: read the tensors it names, make the artefacts, validate every one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from adapters_store.artefact import Artefact, build_artefact
from adapters_store.backbone import BackboneRecord
from adapters_store.errors import RejectedArtefactError
from adapters_store.formats import make_plan
from adapters_store.formats.effect import effect_notes
from adapters_store.formats.inspection import (
    ImportOptions,
    Inspection,
    Plan,
    PlannedArtefact,
    Reason,
)
from adapters_store.formats.native import read_native
from adapters_store.formats.reading import TensorReader
from adapters_store.formats.source import Source
from adapters_store.limits import DEFAULT_LIMITS, Limits
from adapters_store.manifest import TaskSignature
from adapters_store.primitives.head import HeadPart
from adapters_store.signature import Task


def import_from(
    source: Source,
    backbone: BackboneRecord,
    options: ImportOptions | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> list[tuple[str, Artefact]]:
    """Inspect a source and build its artefacts, each with the suffix of its name, banks first.

    Raises RejectedArtefactError with every reason where the verdict is reject, and what
    :func:`~adapters_store.validation.validate_alone` raises for the values.
    """
    chosen = options or ImportOptions()
    return build(make_plan(source, backbone, chosen, limits), source, backbone, chosen, limits)


def build(
    plan: Plan,
    source: Source,
    backbone: BackboneRecord,
    options: ImportOptions,
    limits: Limits = DEFAULT_LIMITS,
) -> list[tuple[str, Artefact]]:
    """The artefacts of a plan made on the same source; raises as :func:`import_from` does.

    An accepted source is read as it is, with its own signature and provenance.
    """
    refuse_rejected(plan.inspection)
    if plan.inspection.verdict == "accept":
        return [("", read_native(source, limits))]
    reader = TensorReader(source, limits)
    built: list[tuple[str, Artefact]] = []
    bank: str | None = None
    for planned in plan.artefacts:
        tensors = {
            piece.name: piece.make([reader.read(ref) for ref in piece.sources])
            for piece in planned.pieces
        }
        notes = (*plan.inspection.notes, *effect_notes(planned.parts, tensors))
        artefact = build_artefact(
            kind=planned.kind,
            backbone=backbone,
            parts=planned.parts,
            tensors=tensors,
            signature=None if planned.kind == "bank" else _signature(planned, backbone, options),
            bank=bank if planned.kind == "routing" else None,
            provenance=_provenance(plan.inspection, source, notes, options.provenance),
        )
        if planned.kind == "bank":
            bank = artefact.digest
        built.append((planned.suffix, artefact))
    return built


def refuse_rejected(inspection: Inspection) -> None:
    """Raise RejectedArtefactError, with every reason in its message, for a rejection."""
    if inspection.verdict != "reject":
        return
    reasons = "; ".join(f"{reason.code}: {reason.message}" for reason in inspection.reasons)
    raise RejectedArtefactError(f"{inspection.source} is rejected: {reasons}")


def _signature(
    planned: PlannedArtefact, backbone: BackboneRecord, options: ImportOptions
) -> TaskSignature:
    head = next((part for part in planned.parts if isinstance(part, HeadPart)), None)
    labels: Sequence[str] = ()
    if head is not None:
        given = options.labels or planned.labels
        labels = given or [f"label_{index}" for index in range(head.num_labels)]
    by_default: Task = "text2text" if backbone.shapes.anatomy.can_generate else "embedding"
    return TaskSignature(
        task="classification" if head is not None else (options.task or by_default),
        labels=tuple(labels),
        description=options.description,
        prompt_template=options.prompt_template,
        max_input_tokens=options.max_input_tokens,
        max_output_tokens=options.max_output_tokens,
    )


def _provenance(
    inspection: Inspection, source: Source, notes: Sequence[Reason], given: Mapping[str, Any]
) -> dict[str, Any]:
    about = {
        "source": source.location,
        "revision": source.revision,
        "format": inspection.format,
        "method": inspection.method,
        "notes": [note.as_json() for note in notes],
    }
    return {**given, "imported": about}
