"""A model of experts with a Poly selector, as ``save_pretrained`` of the main branch writes it.

A bank is one tensor per module, ``experts.lora_a`` (K, H, in/H, r) and ``experts.lora_b``
(K, r, H, out/H), or one LoRA per expert, ``experts.NAME.lora_a`` (in, r). Logits are (T + 1, H K);
the last row is the answer to tasks that are not known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from adapters_store.formats import routed
from adapters_store.formats.draft import Draft, piece
from adapters_store.formats.inspection import TensorRef
from adapters_store.formats.mttl.experts import read_expert
from adapters_store.formats.mttl.modules import Module, bins_of, group, shared_logits
from adapters_store.formats.mttl.settings import ExpertSettings, SelectorSettings
from adapters_store.formats.options import read_settings
from adapters_store.formats.routed import BankSite, Form, Task

if TYPE_CHECKING:
    import torch

PREFIX = "model."
SELECTOR = "PolySelectorConfig"
_GATE = routed.sigmoid_gate(1e-8)
_ENDING = re.compile(r"\.(?:experts\.(?:[^.]+\.)?lora_[ab]|selector\.module_logits)$")


def plan_model(draft: Draft, config: Mapping[str, Any]) -> None:
    """Add what a model's bank and tasks become to ``draft``, or the reasons why they cannot be."""
    selector = _read_selector(draft, config)
    experts = _read_experts(draft, config)
    if selector is None or experts is None:
        return
    names, settings = experts
    modules = group(draft, PREFIX, _ENDING)
    heads, task_names = selector.n_splits, selector.task_names or []
    bins = bins_of(draft, modules, selector.router_granularity, is_release=False)
    rows = len(task_names) + 1
    logits = shared_logits(draft, modules, bins, (rows, heads * len(names)))
    form = Form(settings.lora_rank, len(names), heads, settings.lora_alpha / settings.lora_rank)
    sites = [
        site
        for module in modules
        if (site := _take(draft, form, module, names, logits.get(module.path))) is not None
    ]
    tasks = routed.numbered(rows, task_names)
    if task_names and len(tasks) == rows:
        tasks[-1] = Task(len(task_names), "-task-default", "any task that is not known")
    routed.add(draft, form, sites, tasks, _GATE)


def _read_selector(draft: Draft, config: Mapping[str, Any]) -> SelectorSettings | None:
    """The Poly selector's options, also where it is the only one of several kinds."""
    found = config.get("selector_config")
    if isinstance(found, Mapping) and isinstance(several := found.get("selectors"), Mapping):
        found = next(iter(several.values())) if len(several) == 1 else found
    name = str(found.get("class_name")) if isinstance(found, Mapping) else repr(found)[:200]
    if not isinstance(found, Mapping) or name.rpartition(".")[2] != SELECTOR:
        draft.reject(
            "unsupported_method",
            f"the selector is {name[:200]!r}; a bank's tasks are imported from {SELECTOR!r} alone, "
            "experts without one from their library",
            "selector_config",
        )
        draft.stop()
        return None
    return read_settings(draft, SelectorSettings, found)


def _read_experts(
    draft: Draft, config: Mapping[str, Any]
) -> tuple[list[str], ExpertSettings] | None:
    """The experts' names in the order of the logits, and the options that scale them all.

    mttl scales every expert by the first one's options.
    """
    infos = config.get("expert_infos")
    if isinstance(infos, list) and infos:
        if not all(isinstance(info, Mapping) for info in infos):
            draft.reject("unreadable", "expert_infos holds something but objects", "expert_infos")
            draft.stop()
            return None
        names = [str(info.get("expert_name")) for info in infos]
        configs = [info.get("expert_config") for info in infos]
    else:
        count = config.get("moe_num_experts")
        if type(count) is not int or not 1 <= count <= draft.limits.max_tensors:
            message = f"there are no expert_infos, and moe_num_experts is {count!r}"
            draft.reject("unreadable", message, "moe_num_experts")
            draft.stop()
            return None
        names, configs = [f"e{index}" for index in range(count)], [config.get("modifier_config")]
    read = [read_expert(draft, one, "expert_config") for one in configs]
    settings = [one[1] for one in read if one is not None]
    if len(settings) != len(configs):
        return None
    if ranks := {one.lora_rank for one in settings} - {settings[0].lora_rank}:
        message = f"the experts have ranks {sorted({settings[0].lora_rank, *ranks})}"
        draft.reject("rank_mismatch", f"{message}; a bank has one", "lora_rank")
    if len({one.lora_alpha for one in settings}) > 1:
        alpha = settings[0].lora_alpha
        message = f"the experts' lora_alpha differ; mttl scales all by the first's, {alpha}"
        draft.note("recorded", message, "lora_alpha")
    return names, settings[0]


def _take(
    draft: Draft, form: Form, module: Module, names: Sequence[str], logits: TensorRef | None
) -> BankSite | None:
    """One module's bank: stacked by mttl already, or to be stacked from its experts."""
    site, heads, skills, rank = module.site, form.num_heads, form.num_skills, form.rank
    if not routed.fits(draft, site, module.path, heads):
        draft.drop(module.names.values())
        return None
    path = f"{PREFIX}{module.path}.experts"
    if f"{path}.lora_a" in draft.tensors:
        a_refs = [draft.take(f"{path}.lora_a", (skills, heads, site.in_features // heads, rank))]
        b_refs = [draft.take(f"{path}.lora_b", (skills, rank, heads, site.out_features // heads))]
        make_a, make_b = _stacked_a, _stacked_b
    elif heads == 1:
        a_refs = [draft.take(f"{path}.{name}.lora_a", (site.in_features, rank)) for name in names]
        b_refs = [draft.take(f"{path}.{name}.lora_b", (rank, site.out_features)) for name in names]
        make_a = make_b = _stack
    else:
        draft.reject(
            "unsupported_option",
            f"n_splits is {heads}, and {module.path!r} holds experts without heads",
            "n_splits",
        )
        draft.drop(module.names.values())
        return None
    if logits is None or None in a_refs or None in b_refs:
        return None
    stem = f"{site.name}/mixture"
    return BankSite(
        site.name, piece(f"{stem}/a", make_a, *a_refs), piece(f"{stem}/b", make_b, *b_refs), logits
    )


def _stacked_a(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """(K, H, in/H, r) to (H, K, in/H, r)."""
    return tensors[0].transpose(0, 1).contiguous()


def _stacked_b(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """(K, r, H, out/H) to (H, K, r, out/H)."""
    return tensors[0].permute(2, 0, 1, 3).contiguous()


def _stack(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """K matrices to one head of K skills."""
    import torch

    return torch.stack(list(tensors)).unsqueeze(0)
