"""Biases in a LoRA file: a site's own as ``replace``, what LoRA adds to it as ``add``."""

from __future__ import annotations

from functools import partial
from typing import Literal

from adapters_store.families.site import Site
from adapters_store.formats.convert import as_stored, scaled, scaled_sum
from adapters_store.formats.draft import Draft, piece
from adapters_store.formats.peft.modules import PREFIX, Module
from adapters_store.primitives.override import OverridePart

B_BIAS, BASE_BIAS = ".lora_B.bias", ".base_layer.bias"


Bias = Literal["none", "all", "lora_only"]


def plan_site(
    draft: Draft, bias: Bias, module: Module, site: Site, added_scale: float | None = None
) -> None:
    """Add the biases of one adapted module; ``added_scale`` is that of a bias that LoRA adds."""
    vector = draft.shapes.vector(f"{site.name}.bias")
    base = added = None
    if bias != "none" and vector.is_present:
        base = draft.take(module.name(BASE_BIAS), (vector.size,))
    if added_scale is not None:
        added = draft.take(module.name(B_BIAS), (vector.size,))
    name = f"{vector.name}/override/value"
    replaced = OverridePart(vector=vector.name, operation="replace")
    if base is not None and added is not None and added_scale is not None:
        both = partial(scaled_sum, scale=added_scale)
        draft.add(replaced, piece(name, both, base, added))
    elif base is not None:
        draft.add(replaced, piece(name, as_stored, base))
    elif added is not None and added_scale is not None:
        part = OverridePart(vector=vector.name, operation="add")
        draft.add(part, piece(name, partial(scaled, scale=added_scale), added))


def drop_copies(draft: Draft, bias: Bias) -> None:
    """Leave out what ``bias="all"`` saves of whole modules besides the modules themselves.

    PEFT then keeps the biases of its wrapper's two copies too: the trained one, which the module's
    own name repeats, and the original, which computes nothing.
    """
    copies = [
        name
        for name in draft.tensors
        if name.endswith(".bias") and (".modules_to_save." in name or ".original_module." in name)
    ]
    if bias == "all" and copies:
        for name in copies:
            draft.tensors.pop(name)
        message = f"{len(copies)} biases are copies of saved modules; they are not imported"
        draft.note("unused_tensor", message, copies[0])


def plan_others(draft: Draft, bias: Bias) -> None:
    """Add the biases of modules that are not adapted, which ``bias="all"`` saves as well."""
    if bias != "all":
        return
    for name in sorted(draft.tensors):
        if not name.startswith(PREFIX) or not name.endswith(".bias"):
            continue
        vector = draft.lookup.vector(name.removeprefix(PREFIX))
        if vector is None or not vector.is_present:
            draft.tensors.pop(name)
            draft.reject(
                "incompatible",
                f"{name!r} is a bias that backbone {draft.backbone.name!r} does not name",
                name,
            )
            continue
        value = draft.take(name, (vector.size,))
        if value is not None:
            part = OverridePart(vector=vector.name, operation="replace")
            draft.add(part, piece(f"{vector.name}/override/value", as_stored, value))
