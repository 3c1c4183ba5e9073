"""Golden backbones and adapters as tests use them."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from adapters_store.backbone import Backbone

GOLDEN = Path(__file__).parent


@lru_cache
def golden_backbone(family: str) -> Backbone:
    """A committed backbone by the name of its folder."""
    return Backbone.from_folder(GOLDEN / "backbones" / family)
