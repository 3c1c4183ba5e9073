"""Primitives: what an artefact's parts may be. One file each, found through a lazy table.

A part says which tensors it owns and of what shape; validation, training and serving all read it
there. Adding a primitive is one file and one row.
"""

from __future__ import annotations

from typing import Any

from adapters_store.errors import UsageError
from adapters_store.lazy import resolve
from adapters_store.primitives.part import BackboneShapes, Part, TensorSpec

PRIMITIVES: dict[str, str] = {
    "low_rank": "adapters_store.primitives.low_rank:LowRankPart",
    "mixture": "adapters_store.primitives.mixture:BankPart",
    "routing": "adapters_store.primitives.routing:RoutingPart",
    "scale": "adapters_store.primitives.scale:ScalePart",
    "bottleneck": "adapters_store.primitives.bottleneck:BottleneckPart",
    "prefix": "adapters_store.primitives.prefix:PrefixPart",
    "prompt": "adapters_store.primitives.prompt:PromptPart",
    "override": "adapters_store.primitives.override:OverridePart",
    "head": "adapters_store.primitives.head:HeadPart",
}


def as_part(value: Any) -> Part:
    """A part from itself or from its mapping; raises ValueError for an unknown primitive."""
    if isinstance(value, Part):
        return value
    if not isinstance(value, dict) or not isinstance(value.get("primitive"), str):
        raise ValueError("a part is an object with the key 'primitive'")
    try:
        part_type: type[Part] = resolve(PRIMITIVES, value["primitive"], "primitive")
    except UsageError as error:
        raise ValueError(error.message) from error
    return part_type.model_validate(value)


__all__ = ["PRIMITIVES", "BackboneShapes", "Part", "TensorSpec", "as_part"]
