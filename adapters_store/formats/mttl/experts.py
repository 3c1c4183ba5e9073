"""One LoRA per module: an expert of a library, an expert model, or the release's plain LoRA."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from adapters_store.formats.convert import as_stored, transposed
from adapters_store.formats.draft import Draft, piece
from adapters_store.formats.mttl import A, B
from adapters_store.formats.mttl.modules import Module, group
from adapters_store.formats.mttl.settings import ExpertSettings, relevant
from adapters_store.formats.options import read_settings
from adapters_store.primitives.low_rank import LowRankPart

METHODS = {"LoRAConfig": "lora", "SkilledLoRAConfig": "skilled_lora"}
"""By the last step of a configuration's class name, which is compared and never imported."""
_FACTOR = re.compile(r"\.lora_[ab]$")


def read_expert(draft: Draft, config: object, where: str) -> tuple[str, ExpertSettings] | None:
    """An expert's method with its options; None, with the reasons, where it has no LoRA.

    Configurations from before ``class_name`` are whole training configurations.
    """
    if not isinstance(config, Mapping):
        draft.reject("unreadable", f"{where} holds no expert_config", where)
        draft.stop()
        return None
    class_name = config.get("class_name")
    if class_name is not None:
        method = METHODS.get(str(class_name).rpartition(".")[2], "")
    else:
        method = str(config.get("__model_modifier__") or config.get("model_modifier") or "")
    if method not in METHODS.values():
        found = str(class_name or method)[:200]
        draft.reject(
            "unsupported_method",
            f"the expert is a {found!r}; known: {sorted(METHODS.values())}",
            where,
        )
        draft.stop()
        return None
    options = dict(config) if class_name is not None else legacy_options(config)
    settings = read_settings(draft, ExpertSettings, options)
    return None if settings is None else (method, settings)


def legacy_options(config: Mapping[str, Any]) -> dict[str, Any]:
    """What an expert reads of a whole training configuration."""
    known = ExpertSettings.model_fields
    return {name: value for name, value in relevant(config).items() if name in known}


def plan_expert(draft: Draft, method: str, settings: ExpertSettings, prefix: str) -> None:
    """Add a single expert's LoRA, whose factors are (in, r) and (r, out)."""
    if method != "lora":
        draft.reject(
            "unsupported_method",
            "a skilled LoRA without a selector is a bank without tasks; import the model that "
            "was saved with its selector",
        )
        return draft.stop()
    for module in group(draft, prefix, _FACTOR):
        add_update(draft, module, settings.lora_rank, settings.lora_alpha, is_turned=False)


def plan_release_lora(draft: Draft, rank: int, alpha: float, prefix: str) -> None:
    """Add the release's plain LoRA, whose factors are (in, r) or, in older commits, (r, in).

    All modules must be stored in one order, and the widths must tell which.
    """
    modules = group(draft, prefix, _FACTOR)
    orders = {order for module in modules if (order := _order(draft, module, rank)) is not None}
    if len(orders) != 1:
        found = "two orders" if orders else "no order, or both,"
        message = f"the factors' axes are in {found} for rank {rank}; none is taken for granted"
        draft.reject("shape_mismatch", message)
        return draft.stop()
    for module in modules:
        add_update(draft, module, rank, alpha, is_turned=orders == {True})


def _order(draft: Draft, module: Module, rank: int) -> bool | None:
    """True for factors (r, in) and (out, r), False for (in, r) and (r, out), else None."""
    site = module.site
    stored = [draft.tensors[name].shape for _, name in sorted(module.names.items())]
    is_turned = stored == [(rank, site.in_features), (site.out_features, rank)]
    is_straight = stored == [(site.in_features, rank), (rank, site.out_features)]
    return is_turned if is_turned != is_straight else None


def add_update(draft: Draft, module: Module, rank: int, alpha: float, *, is_turned: bool) -> None:
    """Add one module's low-rank update, or the reasons why it has none."""
    site, names = module.site, module.names
    if len(names) != 2:
        draft.drop(names.values())
        absent = A if A not in names else B
        draft.reject("missing_tensor", f"module {module.path!r} has no {absent!r}", module.path)
        return
    a_shape, b_shape = (site.in_features, rank), (rank, site.out_features)
    a = draft.take(names[A], a_shape[::-1] if is_turned else a_shape)
    b = draft.take(names[B], b_shape[::-1] if is_turned else b_shape)
    if a is not None and b is not None:
        make = transposed if is_turned else as_stored
        stem = f"{site.name}/low_rank"
        draft.add(
            LowRankPart(site=site.name, rank=rank, scale=alpha / rank),
            piece(f"{stem}/a", make, a),
            piece(f"{stem}/b", make, b),
        )
