"""LayerNorm tuning: whole norms of the task's own, as ``override`` parts."""

from __future__ import annotations

from adapters_store.formats.convert import as_stored
from adapters_store.formats.draft import Draft, piece
from adapters_store.formats.peft import saved
from adapters_store.formats.peft.modules import group
from adapters_store.formats.peft.settings import NormSettings
from adapters_store.primitives.override import OverridePart

SUFFIX = ".ln_tuning_layers"
WEIGHT, BIAS = f"{SUFFIX}.weight", f"{SUFFIX}.bias"


def plan(draft: Draft, settings: NormSettings) -> None:
    """Add what the adapter becomes to ``draft``, or the reasons why it cannot be."""
    saved.refuse_embeddings(draft)
    seen: dict[str, str] = {}
    for module in group(draft, (WEIGHT, BIAS)):
        for suffix, name in module.names.items():
            parameter = "weight" if suffix == WEIGHT else "bias"
            vector = draft.lookup.vector(f"{module.path}.{parameter}")
            if vector is None:
                draft.tensors.pop(name)
                draft.reject(
                    "incompatible",
                    f"{module.path!r} is not a norm of backbone {draft.backbone.name!r} "
                    f"({draft.backbone.family})",
                    name,
                )
            elif vector.name in seen:
                draft.tensors.pop(name)
                message = f"{seen[vector.name]!r} and {name!r} are both {vector.name!r}"
                draft.reject("extra_tensor", message, name)
            else:
                seen[vector.name] = name
                value = draft.take(name, (vector.size,))
                part = OverridePart(vector=vector.name, operation="replace")
                draft.add(part, piece(f"{vector.name}/override/value", as_stored, value))
    saved.plan(draft, settings)
