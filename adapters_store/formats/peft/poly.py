"""Poly and multi-head routing: a bank with one routing per task, or one task's plain LoRA."""

from __future__ import annotations

from adapters_store.families.site import Site
from adapters_store.formats import routed
from adapters_store.formats.convert import as_stored
from adapters_store.formats.draft import Draft, piece
from adapters_store.formats.peft import saved
from adapters_store.formats.peft.modules import Module, group, sites
from adapters_store.formats.peft.settings import PolySettings
from adapters_store.formats.peft.targets import report_targets
from adapters_store.formats.routed import BankSite, Form

A, B, ROUTER = ".poly_lora_A", ".poly_lora_B", ".poly_router.module_logits"
GATE = routed.sigmoid_gate(1e-12)
"""PEFT adds this to the sum that normalises a gate."""


def plan(draft: Draft, settings: PolySettings) -> None:
    """Add what the tasks become to ``draft``, or the reasons why they cannot be."""
    saved.refuse_embeddings(draft)
    placed = list(sites(draft, group(draft, (A, B, ROUTER)), settings.task_type))
    banks = [bank for module, site in placed if (bank := _take(draft, settings, module, site))]
    saved.plan(draft, settings)
    report_targets(draft, settings, placed)
    form = Form(settings.r, settings.n_skills, settings.n_splits, scale=1 / settings.r)
    routed.add(draft, form, banks, routed.numbered(settings.n_tasks), GATE)


def _take(draft: Draft, settings: PolySettings, module: Module, site: Site) -> BankSite | None:
    heads, skills, rank = settings.n_splits, settings.n_skills, settings.r
    if not routed.fits(draft, site, module.path, heads):
        draft.drop(module.names.values())
        return None
    a = draft.take(module.name(A), (heads, skills, site.in_features // heads, rank))
    b = draft.take(module.name(B), (heads, skills, rank, site.out_features // heads))
    logits = draft.take(module.name(ROUTER), (settings.n_tasks, heads * skills))
    if a is None or b is None or logits is None:
        return None
    stem = f"{site.name}/mixture"
    return BankSite(
        site.name, piece(f"{stem}/a", as_stored, a), piece(f"{stem}/b", as_stored, b), logits
    )
