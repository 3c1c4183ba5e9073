"""Methods of ``adapters`` by their architecture, and the plan of one method or of a union."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from adapters_store.backbone import BackboneRecord
from adapters_store.formats.adapterhub.bottleneck import plan_bottleneck
from adapters_store.formats.adapterhub.document import CONFIG_FILE, Document
from adapters_store.formats.adapterhub.draft import Draft, short
from adapters_store.formats.adapterhub.layout import LAYOUTS
from adapters_store.formats.adapterhub.lora import plan_lora
from adapters_store.formats.adapterhub.member import Member, read_options
from adapters_store.formats.adapterhub.options import BOTTLENECK, LORA, PREFIX, PROMPT, Option
from adapters_store.formats.adapterhub.prefix import plan_prefix
from adapters_store.formats.adapterhub.prompt import plan_prompt

METHODS: dict[str, tuple[tuple[Option, ...], Callable[[Member, Draft], None]]] = {
    "bottleneck": (BOTTLENECK, plan_bottleneck),
    "lora": (LORA, plan_lora),
    "prefix_tuning": (PREFIX, plan_prefix),
    "prompt_tuning": (PROMPT, plan_prompt),
}
"""By ``architecture``, which is null for bottlenecks: the options and what makes parts of them."""


def plan_members(document: Document, backbone: BackboneRecord, draft: Draft) -> list[str]:
    """Fill the draft with the parts of every method; returns the methods' names for people."""
    layout = LAYOUTS.get(document.model_type)
    model_type, width = backbone.config.get("model_type"), backbone.shapes.hidden_size
    if (document.model_type, document.hidden_size or width) != (model_type, width):
        message = (
            f"made for a {short(document.model_type)} of width {document.hidden_size}; "
            f"{backbone.name} is a {model_type!r} of width {width}"
        )
        draft.abandon("incompatible", message, CONFIG_FILE)
        return []
    if layout is None:
        message = f"model_type {model_type!r} is not one of {sorted(LAYOUTS)}"
        draft.abandon("incompatible", message, CONFIG_FILE)
        return []
    if document.model_name:
        message = f"made for {short(document.model_name)}; its name is not checked"
        draft.note("recorded", message, "model_name")
    names = []
    for index, config in enumerate(document.members):
        draft.scope = f"config.configs.{index}" if document.is_union else "config"
        architecture = config.get("architecture") or "bottleneck"
        if not isinstance(architecture, str) or architecture not in METHODS:
            message = f"architecture is {short(architecture)}; known: {sorted(METHODS)}"
            draft.abandon("unsupported_method", message, f"{draft.scope}.architecture")
            continue
        names.append(_name(config))
        known, planner = METHODS[architecture]
        options = read_options(_without_unused_inverse(config, document, draft), known, draft)
        if options is not None:
            alpha = _alpha(document, options, draft)
            planner(Member(document.name, options, layout, alpha), draft)
    return names


def _without_unused_inverse(
    config: Mapping[str, Any], document: Document, draft: Draft
) -> Mapping[str, Any]:
    """The options of an old task adapter without the invertible one that they name and it lacks.

    Old releases wrote a language adapter's inverse into the options of task adapters. The
    library loads these without it; any other inverse stays in the options.
    """
    former = config.get("invertible_adapter")
    if not former and not config.get("inv_adapter"):
        return config
    stem = f"invertible_adapters.{document.name}."
    is_kept = any(key.startswith(stem) for key in draft.tensors)
    names = ("invertible_adapter", "inv_adapter", "inv_adapter_reduction_factor")
    others = {name: value for name, value in config.items() if name not in names}
    if document.is_text_task and not is_kept:
        message = "the options of a task adapter name an inverse; it was made without an inverse"
        draft.note("recorded", message, f"{draft.scope}.inv_adapter")
        return others
    return {**others, "inv_adapter": config.get("inv_adapter") or former}


def _name(config: Mapping[str, Any]) -> str:
    if config.get("composition_mode") == "scale":
        return "ia3"
    return "compacter" if config.get("phm_layer") else config.get("architecture") or "bottleneck"


def _alpha(document: Document, options: Mapping[str, Any], draft: Draft) -> float:
    """LoRA's alpha as it acted in training: releases before 1.1.0 left the scale out."""
    alpha, rank = options.get("alpha", 1), options.get("r", 1)
    if alpha == rank or document.scales_wrongly is False:
        return float(alpha)
    where, version = f"{draft.scope}.alpha", short(document.version)
    if document.scales_wrongly is None or document.is_union:
        message = f"alpha {alpha} beside r {rank}: how version {version} scaled is unclear"
        draft.reject("unsupported_option", message, where)
    else:
        message = f"alpha is taken as r, {rank}: version {version} trained without a scale"
        draft.note("recorded", message, where)
    return float(rank)
