"""``override``: a named vector replaced or added to, by a parameter that stands in for it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch

from adapters_store.primitives.override import OverridePart
from training.reference.stage import Stage


def install(parts: Sequence[OverridePart], stage: Stage) -> None:
    """Put each part's vector in its place."""
    for part in parts:
        value = stage.tensors[f"{part.vector}/override/value"]
        path = stage.shapes.vector(part.vector).parameter_path
        stage.swap(path, partial(_changed, part.operation, value))


def _changed(operation: str, value: torch.Tensor, present: torch.Tensor | None) -> torch.Tensor:
    return value if operation == "replace" or present is None else present + value
