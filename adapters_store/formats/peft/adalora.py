"""AdaLoRA: ``low_rank`` parts with the singular values folded into one factor."""

from __future__ import annotations

from adapters_store.formats.convert import scaled_rows_transposed, transposed
from adapters_store.formats.draft import Draft, piece
from adapters_store.formats.peft import biases, saved
from adapters_store.formats.peft.biases import BASE_BIAS
from adapters_store.formats.peft.lora import check_initialisation
from adapters_store.formats.peft.modules import group, sites
from adapters_store.formats.peft.settings import AdaLoraSettings
from adapters_store.formats.peft.targets import report_targets
from adapters_store.primitives.low_rank import LowRankPart

A, B, E = ".lora_A", ".lora_B", ".lora_E"
_RANK_OFFSET = 1e-5
"""PEFT divides by the rank plus this."""


def plan(draft: Draft, settings: AdaLoraSettings) -> None:
    """Add what the adapter becomes to ``draft``, or the reasons why it cannot be.

    The update is ``x (A * E)^T B^T alpha / (init_r + 1e-5)``; PEFT keeps the initial rank in the
    scale of a module that was pruned.
    """
    check_initialisation(draft, settings)
    saved.refuse_embeddings(draft)
    biases.drop_copies(draft, settings.bias)
    placed = list(sites(draft, group(draft, (A, B, E, BASE_BIAS)), settings.task_type))
    for module, site in placed:
        stored = draft.tensors.get(module.name(A))
        rank = stored.shape[0] if stored is not None and len(stored.shape) == 2 else 0
        a = draft.take(module.name(A), (rank, site.in_features))
        b = draft.take(module.name(B), (site.out_features, rank))
        e = draft.take(module.name(E), (rank, 1))
        biases.plan_site(draft, settings.bias, module, site)
        kept = (settings.rank_pattern or {}).get(module.path + E)
        expected = settings.init_r if kept is None else sum(kept)
        if a is None or b is None or e is None:
            continue
        if rank != expected:
            message = f"the tensors of {module.path!r} have rank {rank}; init_r and rank_pattern "
            draft.reject("rank_mismatch", f"{message}say {expected}", module.path)
            continue
        if rank == 0:
            draft.note("no_effect", f"{module.path!r} was pruned to rank 0", module.path)
            continue
        scale = settings.lora_alpha / (settings.init_r + _RANK_OFFSET)
        stem = f"{site.name}/low_rank"
        draft.add(
            LowRankPart(site=site.name, rank=rank, scale=scale),
            piece(f"{stem}/a", scaled_rows_transposed, a, e),
            piece(f"{stem}/b", transposed, b),
        )
    saved.plan(draft, settings)
    biases.plan_others(draft, settings.bias)
    report_targets(draft, settings, placed)
