"""``prefix``: key and value rows before an attention's own, and the positions that they shift."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from adapters_store.errors import InvalidArtefactError
from adapters_store.primitives.prefix import PrefixPart
from training.reference.attention import Rows, add_rows, take_over
from training.reference.positions import prefix_bias, shift_tokens
from training.reference.stage import Stage


def install(parts: Sequence[PrefixPart], stage: Stage) -> None:
    """Put each part's rows into its attention.

    Raises InvalidArtefactError where self-attentions of one stack shift its positions unequally.
    """
    shifts: dict[str, set[int]] = defaultdict(set)
    for part in parts:
        stack, _, kind = part.attention.split(".")
        place, bias = stage.shapes.attention(part.attention), None
        if (record := place.relative_bias) is not None:
            bias = prefix_bias(stage, record, part.num_tokens, is_shifted=part.shifts_positions)
        stem = f"{part.attention}/prefix"
        rows = Rows(stage.tensors[f"{stem}/key"], stage.tensors[f"{stem}/value"], bias)
        add_rows(stage, place.module_path, rows)
        if kind == "self" and place.relative_bias is None:
            shifts[stack].add(part.num_tokens if part.shifts_positions else 0)
    for stack, found in shifts.items():
        if len(found) > 1:
            raise InvalidArtefactError(
                f"prefixes shift the {stack}'s positions by {sorted(found)}; expected one number"
            )
        if num_rows := found.pop():
            shift_tokens(stage, stage.shapes.input(stack), num_rows)
    if parts:
        take_over(stage)
