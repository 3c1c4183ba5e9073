"""Carrying out a plan: read the tensors it names, make the artefacts, validate every one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from adapters_store.artefact import Artefact, build_artefact
from adapters_store.backbone import BackboneRecord
from adapters_store.errors import RejectedArtefactError, UsageError
from adapters_store.formats import make_plan
from adapters_store.formats.effect import effect_notes
from adapters_store.formats.inspection import (
    ImportOptions,
    Inspection,
    Plan,
    PlannedArtefact,
    Reason,
)
from adapters_store.formats.native import is_native, read_native
from adapters_store.formats.reading import TensorReader
from adapters_store.formats.source import Source
from adapters_store.limits import DEFAULT_LIMITS, Limits
from adapters_store.manifest import TaskSignature
from adapters_store.primitives.head import HeadPart
from adapters_store.signature import Task
from adapters_store.validation import validate_alone


def import_from(
    source: Source,
    backbone: BackboneRecord,
    options: ImportOptions | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> list[tuple[str, Artefact]]:
    """Inspect a source and build its artefacts, each with the suffix of its name, banks first.

    An artefact of this product is read as it is and raises what is wrong with it. Anything else
    raises RejectedArtefactError with every reason where the verdict is reject, and what
    :func:`~adapters_store.validation.validate_alone` raises for the values.
    """
    chosen = options or ImportOptions()
    if is_native(source):
        artefact = read_native(source, chosen, limits)
        validate_alone(artefact.manifest, artefact.data, backbone, limits)
        return [("", artefact)]
    return build(make_plan(source, backbone, chosen, limits), source, backbone, chosen, limits)


def build(
    plan: Plan,
    source: Source,
    backbone: BackboneRecord,
    options: ImportOptions,
    limits: Limits = DEFAULT_LIMITS,
) -> list[tuple[str, Artefact]]:
    """The artefacts of a plan made on the same source; raises as :func:`import_from` does."""
    refuse_rejected(plan.inspection)
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
            provenance=_provenance(plan.inspection, planned, source, notes, options.provenance),
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
    _refuse_idle_options(options, has_head=head is not None)
    labels: Sequence[str] = ()
    if head is not None:
        given = options.labels or planned.labels
        labels = given or [f"label_{index}" for index in range(head.num_labels)]
    by_default: Task = "text2text" if backbone.shapes.anatomy.can_generate else "embedding"
    try:
        return TaskSignature(
            task="classification" if head is not None else (options.task or by_default),
            labels=tuple(labels),
            description=options.description or planned.task,
            prompt_template=options.prompt_template,
            max_input_tokens=options.max_input_tokens,
            max_output_tokens=options.max_output_tokens,
        )
    except ValidationError as error:
        problems = [
            f"{'.'.join(str(step) for step in item['loc']) or 'task'}: {item['msg']}"
            for item in error.errors(include_url=False, include_input=False)
        ]
        raise UsageError(f"the import's options make no task: {'; '.join(problems)}") from error


def _refuse_idle_options(options: ImportOptions, *, has_head: bool) -> None:
    """Raise UsageError for options that could not take effect."""
    if has_head and options.task not in (None, "classification"):
        raise UsageError(f"task is {options.task!r}, and the adapter has a head", param="task")
    if not has_head and (options.labels or options.task == "classification"):
        raise UsageError(
            "labels and the task 'classification' need a head, and the adapter has none",
            param="labels" if options.labels else "task",
        )


def _provenance(
    inspection: Inspection,
    planned: PlannedArtefact,
    source: Source,
    notes: Sequence[Reason],
    given: Mapping[str, Any],
) -> dict[str, Any]:
    about = {
        "source": source.location,
        "revision": source.revision,
        "format": inspection.format,
        "method": inspection.method,
        "notes": [note.as_json() for note in notes],
        "paths": dict(planned.paths),
    }
    if planned.task:
        about["task"] = planned.task
    return {**given, "imported": about}
