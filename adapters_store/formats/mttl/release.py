"""The paper's release: ``lora_a`` (H, K, in/H, r), ``lora_b`` (H, K, r, out/H), logits (T, H K)."""

from __future__ import annotations

import math
import re
from functools import partial
from typing import TYPE_CHECKING

from adapters_store.formats import routed
from adapters_store.formats.convert import as_stored
from adapters_store.formats.draft import Draft, piece
from adapters_store.formats.inspection import TensorRef
from adapters_store.formats.mttl import LOGITS, A, B
from adapters_store.formats.mttl.experts import plan_release_lora
from adapters_store.formats.mttl.modules import Module, bins_of, group, shared_logits
from adapters_store.formats.mttl.settings import ReleaseSettings
from adapters_store.formats.routed import BankSite, Form, Gate

if TYPE_CHECKING:
    import torch

PREFIX = "model."
METHODS = {"poly": "poly", "poly_lora": "poly", "skilled": "private", "lora": "lora"}
"""By ``model_modifier``, the selector where none is named; ``lora`` has none."""
_OFFSET = 1e-12
_ENDING = re.compile(r"\.(?:lora_[ab]|selector\.module_logits)$")


def plan(draft: Draft, settings: ReleaseSettings) -> None:
    """Add what the checkpoint becomes to ``draft``, or the reasons why it cannot be."""
    if settings.model_modifier not in METHODS:
        draft.reject(
            "unsupported_method",
            f"model_modifier {settings.model_modifier!r} is not imported; known: {sorted(METHODS)}",
            "model_modifier",
        )
        return draft.stop()
    if settings.model_modifier == "lora":
        return plan_release_lora(draft, settings.lora_rank, settings.lora_alpha, PREFIX)
    modules = group(draft, PREFIX, _ENDING)
    selector = settings.router_selector or METHODS[settings.model_modifier]
    gate, num_tasks, logits = _selected(draft, settings, selector, modules)
    form = Form(
        settings.lora_rank,
        settings.n_skills,
        settings.n_splits,
        scale=settings.lora_alpha / settings.lora_rank,
    )
    is_learnt = gate.fixed is None
    sites = [
        site
        for module in modules
        if (site := _take(draft, form, module, logits.get(module.path), is_learnt)) is not None
    ]
    routed.add(draft, form, sites, routed.numbered(num_tasks, settings.task_names or ()), gate)


def _selected(
    draft: Draft, settings: ReleaseSettings, selector: str, modules: list[Module]
) -> tuple[Gate, int, dict[str, TensorRef]]:
    """The gate, the number of tasks and the logits by module of a selector."""
    heads, skills = settings.n_splits, settings.n_skills
    if selector == "average":
        return Gate(_unused, fixed=partial(_uniform, num_heads=heads, num_skills=skills)), 1, {}
    if selector == "private":
        num_tasks = settings.n_tasks or skills
        if heads != 1 or num_tasks > skills:
            draft.reject(
                "unsupported_option",
                f"a private selector needs a skill per task and n_splits 1; found {skills} skills, "
                f"{num_tasks} tasks and n_splits {heads}",
                "router_selector",
            )
        return Gate(_unused, fixed=partial(_one_hot, num_skills=skills)), num_tasks, {}
    if settings.module_logits_dropout:
        draft.reject(
            "unsupported_option",
            f"module_logits_dropout is {settings.module_logits_dropout}; it drops gates outside "
            "training too",
            "module_logits_dropout",
        )
    bins = bins_of(draft, modules, settings.router_granularity, is_release=True)
    num_tasks = _num_tasks(draft, settings, modules)
    logits = shared_logits(draft, modules, bins, (num_tasks, heads * skills))
    return _gate(settings), num_tasks, logits


def _num_tasks(draft: Draft, settings: ReleaseSettings, modules: list[Module]) -> int:
    """Rows of the logits: a fine-tuned checkpoint keeps fewer than its configuration's tasks."""
    stored = [draft.tensors[m.names[LOGITS]].shape for m in modules if LOGITS in m.names]
    found = stored[0][0] if stored and len(stored[0]) == 2 else settings.n_tasks or 1
    if settings.n_tasks not in (None, found):
        message = f"n_tasks is {settings.n_tasks}; the logits have {found} rows, which are imported"
        draft.note("recorded", message, "n_tasks")
    return max(found, 1)


def _take(
    draft: Draft, form: Form, module: Module, logits: TensorRef | None, is_learnt: bool
) -> BankSite | None:
    heads, skills, rank = form.num_heads, form.num_skills, form.rank
    site, path = module.site, f"{PREFIX}{module.path}"
    if not routed.fits(draft, site, module.path, heads):
        draft.drop(module.names.values())
        return None
    a = draft.take(f"{path}{A}", (heads, skills, site.in_features // heads, rank))
    b = draft.take(f"{path}{B}", (heads, skills, rank, site.out_features // heads))
    if a is None or b is None or (logits is None and is_learnt):
        return None
    stem = f"{site.name}/mixture"
    return BankSite(
        site.name, piece(f"{stem}/a", as_stored, a), piece(f"{stem}/b", as_stored, b), logits
    )


def _gate(settings: ReleaseSettings) -> Gate:
    is_plain = not (
        settings.module_logits_straight_through
        or settings.poly_use_shared_skill
        or settings.poly_average_correction
    )
    if is_plain:
        return routed.sigmoid_gate(_OFFSET)
    return Gate(partial(_weigh, settings=settings), is_sigmoid=False)


def _weigh(logits: torch.Tensor, *, settings: ReleaseSettings) -> torch.Tensor:
    """Weights (..., H, K) by the release's options."""
    gates = logits.sigmoid()
    if settings.module_logits_straight_through:
        gates = gates.round()
    if settings.poly_use_shared_skill:
        gates = gates.clone()
        gates[..., -1] = 1.0
    if settings.poly_average_correction:
        return gates * (math.sqrt(settings.n_splits) / math.sqrt(settings.n_skills))
    return gates / (gates.sum(-1, keepdim=True) + _OFFSET)


def _uniform(row: int, *, num_heads: int, num_skills: int) -> torch.Tensor:
    import torch

    return torch.full((num_heads, num_skills), 1 / num_skills)


def _one_hot(row: int, *, num_skills: int) -> torch.Tensor:
    import torch

    weights = torch.zeros(1, num_skills)
    weights[0, row] = 1.0
    return weights


def _unused(logits: torch.Tensor) -> torch.Tensor:
    """The gate of a selector without logits is never asked."""
    return logits
