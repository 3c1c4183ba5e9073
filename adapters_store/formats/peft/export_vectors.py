"""``scale`` parts as IA3, and norms of the task's own as LayerNorm tuning."""

from __future__ import annotations

from adapters_store.errors import RejectedArtefactError
from adapters_store.formats.peft import ia3, norms
from adapters_store.formats.peft.export_lora import CONV1D_TYPES
from adapters_store.formats.peft.outgoing import Outgoing
from adapters_store.primitives.override import OverridePart
from adapters_store.primitives.scale import ScalePart


def fill_scales(outgoing: Outgoing) -> None:
    """Add scales, overridden norms and the head; raises RejectedArtefactError for two scales of
    one site."""
    targets: dict[str, str] = {}
    for part in outgoing.parts(ScalePart):
        site = outgoing.shapes.site(part.site)
        path = outgoing.path(site.module_path)
        if path in targets:
            raise RejectedArtefactError(
                f"PEFT scales the input or the output of a module; {part.site!r} has both"
            )
        targets[path] = part.side
        vector = outgoing.given[f"{part.site}/scale/{part.side}"]
        shape = (1, -1) if part.side == "input" else (-1, 1)
        outgoing.put(site.module_path, ia3.VECTOR, vector.reshape(shape))
    outgoing.options |= {
        "peft_type": "IA3",
        "target_modules": sorted(targets),
        "feedforward_modules": sorted(path for path, side in targets.items() if side == "input"),
        "fan_in_fan_out": outgoing.model_type in CONV1D_TYPES,
    }
    outgoing.save_norms(outgoing.parts(OverridePart))
    outgoing.save_head()


def fill_norms(outgoing: Outgoing) -> None:
    """Add norms and the head; raises RejectedArtefactError for biases of linear sites."""
    targets = outgoing.put_norms(outgoing.parts(OverridePart), norms.SUFFIX)
    outgoing.options |= {"peft_type": "LN_TUNING", "target_modules": sorted(targets)}
    outgoing.save_head()
