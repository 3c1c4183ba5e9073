"""Positions of a stack moved by a prefix or a prompt, and the bias of relative positions."""

from __future__ import annotations

import math

import torch

from adapters_store.errors import IncompatibleError
from adapters_store.families.anatomy import Input
from adapters_store.families.architecture import RelativeBias
from training.reference.attention import Bias
from training.reference.stage import Call, Stage


def shift_tokens(stage: Stage, place: Input, num_rows: int) -> None:
    """Let a stack's tokens begin at position ``num_rows``, in its table or its rotary angles.

    Raises IncompatibleError where it has neither.
    """
    if place.position_path is None and place.rotary_path is None:
        raise IncompatibleError(
            f"a prefix shifts positions, and the {place.name} of this backbone has none to shift"
        )
    if place.position_path is not None:
        shift_table(stage, place.position_path, num_rows)
    if place.rotary_path is not None:

        def add(call: Call) -> None:
            call.set("position_ids", call.get("position_ids") + num_rows)

        stage.before(place.rotary_path, add)


def shift_table(stage: Stage, path: str, num_rows: int) -> None:
    """Let a table answer position i with what it has for ``i + num_rows``, which may be negative.

    Rows that would come from before the table are zeros.
    """

    def moved(table: torch.Tensor | None) -> torch.Tensor:
        assert table is not None
        if num_rows >= 0:
            return table[num_rows:]
        return torch.cat((table.new_zeros(-num_rows, table.shape[1]), table))

    stage.swap(f"{path}.weight", moved)


def prefix_bias(stage: Stage, record: RelativeBias, num_rows: int, *, is_shifted: bool) -> Bias:
    """The bias of a self-attention whose prefix has ``num_rows`` rows.

    Column j is prefix row j, column ``num_rows + t`` is key token t. Query i stands at column
    ``num_rows + i`` where positions are shifted, so that tokens keep their distances, else at
    column i. Source: T5, Raffel et al. 2020; buckets as its published code computes them.
    """
    table = stage.module(record.path)

    def bias(num_queries: int, num_keys: int) -> torch.Tensor:
        device = next(table.parameters()).device
        first = num_keys - num_queries + (num_rows if is_shifted else 0)
        query = torch.arange(first, first + num_queries, device=device)
        column = torch.arange(num_rows + num_keys, device=device)
        found: torch.Tensor = table(_bucket(record, column[None] - query[:, None]))
        return found.permute(2, 0, 1)[None]

    return bias


def _bucket(record: RelativeBias, distance: torch.Tensor) -> torch.Tensor:
    num_buckets, base = record.num_buckets, torch.zeros_like(distance)
    if record.is_bidirectional:
        num_buckets //= 2
        base = (distance > 0).long() * num_buckets
        distance = distance.abs()
    else:
        distance = (-distance).clamp_min(0)
    num_exact = num_buckets // 2
    ratio = torch.log(distance.float() / num_exact) / math.log(record.max_distance / num_exact)
    far = num_exact + (ratio.clamp_min(0) * (num_buckets - num_exact)).long()
    return base + torch.where(distance < num_exact, distance, far.clamp_max(num_buckets - 1))
