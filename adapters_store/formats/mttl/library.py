"""What mttl's main branch saves: libraries of experts, models of experts, single checkpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from adapters_store.backbone import BackboneRecord
from adapters_store.errors import InvalidArtefactError, UnsafeArtefactError
from adapters_store.formats.draft import Draft
from adapters_store.formats.inspection import (
    ROUTED,
    ImportOptions,
    Inspection,
    Plan,
    PlannedArtefact,
    Reason,
)
from adapters_store.formats.mttl import FACTS, META, MODEL_WEIGHTS_STEM, PICKLE
from adapters_store.formats.mttl.documents import (
    WEIGHTS,
    files,
    object_in,
    read_object,
    unconverted,
)
from adapters_store.formats.mttl.experts import plan_expert, read_expert
from adapters_store.formats.mttl.models import plan_model
from adapters_store.formats.source import Source, read_tensor_table
from adapters_store.limits import Limits

MAX_EXPERTS = 1000
Given = tuple[str, Source, BackboneRecord, ImportOptions, Limits]
"""A format's name and what it was given to plan."""


def plan_folder(given: Given, config: Mapping[str, Any]) -> Plan:
    """A model's folder: ``mttl_config.json`` with one expert, or with experts and a selector."""
    source = given[1]
    weights = f"{MODEL_WEIGHTS_STEM}{WEIGHTS}"
    if weights not in source.sizes():
        pickled = f"{MODEL_WEIGHTS_STEM}.bin"
        if pickled in source.sizes():
            raise UnsafeArtefactError(
                f"{pickled} is a pickle and is not opened; run `patchbay adapters convert` on the "
                f"folder to get {weights}"
            )
        raise InvalidArtefactError(f"{source.location} has no {weights}")
    draft = _draft(given, weights)
    _note_base(draft, config.get("base_model"))
    kind = str(config.get("class_name")).rpartition(".")[2]
    if kind == "ExpertModelConfig":
        expert = read_expert(draft, config.get("modifier_config"), "modifier_config")
        if expert is not None:
            plan_expert(draft, *expert, prefix="model.")
        return _named(draft.finish("LORA"), str(config.get("task_name") or ""))
    if kind in ("MultiExpertModelConfig", "MoEModelConfig"):
        plan_model(draft, config)
    else:
        message = f"class_name {str(config.get('class_name'))[:200]!r} is no model of experts"
        draft.reject("unsupported_method", message, "class_name")
        draft.stop()
    return draft.finish(ROUTED)


def plan_checkpoint(given: Given, weights: str) -> Plan:
    """One expert's checkpoint: a Lightning one with ``model.`` before every path, or a dump."""
    document = read_object(given[1], f"{weights.removesuffix(WEIGHTS)}{FACTS}")
    info = object_in(document, "expert_info")
    draft = _draft(given, weights)
    _note_base(draft, info.get("expert_model"))
    config = info.get("expert_config") or object_in(document, "hyper_parameters")
    expert = read_expert(draft, config, "expert_info")
    if expert is not None:
        plan_expert(draft, *expert, prefix="model." if "hyper_parameters" in document else "")
    return _named(draft.finish("LORA"), str(info.get("expert_task_name") or ""))


def plan_library(given: Given) -> Plan:
    """Every expert of a library as an adapter of its own, named behind the name that is given.

    A library of one expert takes the name itself.
    """
    source, backbone = given[1], given[2]
    if pickles := files(source, META):
        raise UnsafeArtefactError(unconverted(f"{pickles[0].removesuffix(META)}{PICKLE}"))
    metas = files(source, f"{META}.json")
    if len(metas) > MAX_EXPERTS:
        raise InvalidArtefactError(
            f"{source.location} holds {len(metas)} experts; at most {MAX_EXPERTS} are imported "
            "at once"
        )
    plans = [plan for name in metas if (plan := _plan_member(given, name)) is not None]
    reasons = [reason for plan in plans for reason in plan.inspection.reasons]
    artefacts = [artefact for plan in plans for artefact in plan.artefacts]
    suffixes = [one.suffix for one in artefacts]
    if twice := sorted({suffix for suffix in suffixes if suffixes.count(suffix) > 1}):
        message = f"several experts have the name {twice[0][1:]!r} here"
        reasons.append(Reason("unreadable", message))
    if not plans:
        reasons.append(Reason("missing_tensor", "every expert of the library is deleted"))
    if len(artefacts) == 1:
        artefacts = [replace(artefacts[0], suffix="")]
    inspections = [plan.inspection for plan in plans]
    inspection = Inspection(
        source=source.location,
        format=given[0],
        method="LORA",
        verdict="reject" if reasons else "convert",
        backbone=backbone.name,
        reasons=tuple(reasons[:40]),
        notes=tuple(dict.fromkeys(note for one in inspections for note in one.notes))[:40],
        parts=() if reasons else tuple(part for one in inspections for part in one.parts),
        num_tensors=sum(one.num_tensors for one in inspections),
        data_bytes=sum(one.data_bytes for one in inspections),
    )
    return Plan(inspection, () if reasons else tuple(artefacts))


def _plan_member(given: Given, meta: str) -> Plan | None:
    """One expert of a library; None where it is marked as deleted."""
    info = read_object(given[1], meta)
    if info.get("expert_deleted") is True:
        return None
    stem = meta.removesuffix(f"{META}.json")
    weights = f"{stem}{WEIGHTS}"
    if weights not in given[1].sizes():
        reason = Reason("missing_tensor", f"{weights} is absent", weights)
        return Plan(Inspection(given[1].location, given[0], "", "reject", given[2].name, (reason,)))
    draft = _draft(given, weights)
    _note_base(draft, info.get("expert_model"))
    expert = read_expert(draft, info.get("expert_config"), meta)
    if expert is not None:
        plan_expert(draft, *expert, prefix="")
    plan = _named(draft.finish("LORA"), str(info.get("expert_task_name") or ""))
    return replace(plan, artefacts=tuple(_called(one, stem) for one in plan.artefacts))


def _draft(given: Given, weights: str) -> Draft:
    name, source, backbone, options, limits = given
    tensors = read_tensor_table(source, weights, limits)
    return Draft(name, source, backbone, options, limits, weights, tensors)


def _called(artefact: PlannedArtefact, expert: str) -> PlannedArtefact:
    """An artefact with the expert's name behind it, spelt as names are here."""
    return replace(artefact, suffix=f"-{re.sub(r'[^a-z0-9._-]+', '-', expert.lower())}")


def _named(plan: Plan, task: str) -> Plan:
    """A plan whose artefacts know what mttl calls their task."""
    return replace(plan, artefacts=tuple(replace(one, task=task) for one in plan.artefacts))


def _note_base(draft: Draft, base: object) -> None:
    if base:
        message = f"made for base model {str(base)[:200]!r}; its name is not checked"
        draft.note("recorded", message, "base_model")
