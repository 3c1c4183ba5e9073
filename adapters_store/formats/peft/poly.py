"""Poly and multi-head routing: a bank with one routing per task, or one task's plain LoRA.

Legend: S sites, T tasks, H heads, K skills, r rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from adapters_store.families.site import Site
from adapters_store.formats.inspection import Piece, PlannedArtefact, TensorRef
from adapters_store.formats.peft import saved
from adapters_store.formats.peft.convert import as_stored
from adapters_store.formats.peft.draft import Draft, piece
from adapters_store.formats.peft.modules import Module, drop, group, sites
from adapters_store.formats.peft.settings import PolySettings
from adapters_store.formats.peft.targets import report_targets
from adapters_store.primitives.low_rank import LowRankPart
from adapters_store.primitives.mixture import BankPart
from adapters_store.primitives.routing import LOGITS, WEIGHTS, RoutingPart
from adapters_store.skills import task_as_lora

if TYPE_CHECKING:
    import torch

A, B, ROUTER = ".poly_lora_A", ".poly_lora_B", ".poly_router.module_logits"
MAX_TASKS = 2000
_GATE_OFFSET = 1e-12
"""PEFT adds this to the sum that normalises a gate."""


@dataclass(frozen=True, slots=True)
class _Bank:
    """What one site of the file holds."""

    site: Site
    a: TensorRef
    b: TensorRef
    logits: TensorRef


def plan(draft: Draft, settings: PolySettings) -> None:
    """Add what the tasks become to ``draft``, or the reasons why they cannot be."""
    saved.refuse_embeddings(draft)
    placed = list(sites(draft, group(draft, (A, B, ROUTER)), settings.task_type))
    banks = [bank for module, site in placed if (bank := _take(draft, settings, module, site))]
    saved.plan(draft, settings)
    report_targets(draft, settings, placed)
    task = draft.options.poly_task
    if settings.n_tasks > MAX_TASKS:
        message = f"n_tasks is {settings.n_tasks}; at most {MAX_TASKS} are imported at once"
        draft.reject("too_large", message, "n_tasks")
        return
    if task is not None and task not in range(settings.n_tasks):
        draft.reject(
            "unsupported_option",
            f"task {task} was asked for; the file has tasks 0 to {settings.n_tasks - 1}",
            "n_tasks",
        )
    elif task is not None:
        for bank in banks:
            _add_task(draft, settings, bank, task)
    elif others := sorted({p.primitive for p in draft.parts if "routing" not in p.kinds}):
        draft.reject(
            "unsupported_option",
            f"modules_to_save gives {', '.join(others)} parts, which a routing does not carry; "
            "import one task as a plain adapter",
            "modules_to_save",
        )
    elif banks and not draft.reasons:
        _add_bank(draft, settings, banks)


def _take(draft: Draft, settings: PolySettings, module: Module, site: Site) -> _Bank | None:
    heads, skills, rank = settings.n_splits, settings.n_skills, settings.r
    if site.in_features % heads or site.out_features % heads:
        draft.reject(
            "incompatible",
            f"n_splits {heads} does not divide the widths {site.in_features} and "
            f"{site.out_features} of {module.path!r}",
            module.path,
        )
        drop(draft, module)
        return None
    a = draft.take(module.name(A), (heads, skills, site.in_features // heads, rank))
    b = draft.take(module.name(B), (heads, skills, rank, site.out_features // heads))
    logits = draft.take(module.name(ROUTER), (settings.n_tasks, heads * skills))
    return None if a is None or b is None or logits is None else _Bank(site, a, b, logits)


def _add_bank(draft: Draft, settings: PolySettings, banks: Sequence[_Bank]) -> None:
    """The bank, then a routing per task, each with the saved modules of the file."""
    heads, skills = settings.n_splits, settings.n_skills
    head_parts, head_pieces = draft.parts, draft.pieces
    draft.parts, draft.pieces = [], []
    for bank in banks:
        name = bank.site.name
        part = BankPart(
            site=name,
            rank=settings.r,
            num_skills=skills,
            num_heads=heads,
            scale=1 / settings.r,
        )
        draft.add(
            part,
            piece(f"{name}/mixture/a", as_stored, bank.a),
            piece(f"{name}/mixture/b", as_stored, bank.b),
        )
    draft.artefacts.append(
        PlannedArtefact(
            "bank", tuple(draft.parts), tuple(draft.pieces), suffix="-bank", paths=draft.paths
        )
    )
    routing = RoutingPart(
        sites=tuple(bank.site.name for bank in banks), num_skills=skills, num_heads=heads
    )
    sources = tuple(bank.logits for bank in banks)
    for task in range(settings.n_tasks):
        select = partial(_logits, task=task, num_heads=heads)
        pieces = (
            Piece(WEIGHTS, sources, partial(_weights, task=task, num_heads=heads)),
            Piece(LOGITS, sources, select),
        )
        draft.artefacts.append(
            PlannedArtefact(
                "routing",
                (routing, *head_parts),
                (*pieces, *head_pieces),
                suffix=f"-task-{task}",
            )
        )


def _add_task(draft: Draft, settings: PolySettings, bank: _Bank, task: int) -> None:
    name, sources = bank.site.name, (bank.a, bank.b, bank.logits)
    draft.add(
        LowRankPart(site=name, rank=settings.r, scale=1 / settings.r),
        piece(f"{name}/low_rank/a", partial(_mixed, task=task, index=0), *sources),
        piece(f"{name}/low_rank/b", partial(_mixed, task=task, index=1), *sources),
    )


def _logits(tensors: Sequence[torch.Tensor], *, task: int, num_heads: int) -> torch.Tensor:
    """One task's logits (S, H, K) from those of every site (T, H K)."""
    import torch

    return torch.stack([logits[task].reshape(num_heads, -1) for logits in tensors])


def _weights(tensors: Sequence[torch.Tensor], *, task: int, num_heads: int) -> torch.Tensor:
    """One task's weights (S, H, K) after the gate, float32 as PEFT computes them."""
    return gate(_logits(tensors, task=task, num_heads=num_heads).float())


def gate(logits: torch.Tensor) -> torch.Tensor:
    """Poly's gate in evaluation: sigmoids over the last dimension, divided by their sum."""
    sigmoids = logits.sigmoid()
    return sigmoids / (sigmoids.sum(-1, keepdim=True) + _GATE_OFFSET)


def _mixed(tensors: Sequence[torch.Tensor], *, task: int, index: int) -> torch.Tensor:
    """One task's ``a`` (index 0) or ``b`` (index 1), float32, from a bank's and the logits."""
    a, b, logits = tensors
    weights = gate(logits[task].float().reshape(a.shape[:2]))
    return task_as_lora(a.float(), b.float(), weights)[index].contiguous()
