"""The few effects every trained method reduces to, one file each.

Each row of :data:`PRIMITIVES` names a function ``prepare(parts, tensors, target) -> Prepared``
(``routing`` takes the prepared bank as well).
"""

from __future__ import annotations

PRIMITIVES: dict[str, str] = {
    "low_rank": "serving.primitives.low_rank:prepare",
    "mixture": "serving.primitives.mixture:prepare_bank",
    "routing": "serving.primitives.mixture:prepare_routing",
    "scale": "serving.primitives.scale:prepare",
    "bottleneck": "serving.primitives.bottleneck:prepare",
    "prefix": "serving.primitives.prefix:prepare",
    "prompt": "serving.primitives.prompt:prepare",
    "override": "serving.primitives.override:prepare",
    "head": "serving.primitives.head:prepare",
}

__all__ = ["PRIMITIVES"]
