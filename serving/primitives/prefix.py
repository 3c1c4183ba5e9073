"""``prefix``: key and value rows that stand before an attention's own.

The rows lie in front of a row's cached keys and values, so decode reads them as it reads the cache;
prefill puts them before the keys of the rows that share an adapter. Every query sees them, whatever
its window. :func:`reference` is the formula for one row.

Shapes: ``P`` prefix rows, ``k`` key-value heads, ``h`` query heads, ``d`` head width, ``W`` =
2 * k * d: keys and values of a position, keys first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from adapters_store.errors import InvalidArtefactError
from serving.primitives.prepared import Prepared, Target


@dataclass(frozen=True)
class Prefix:
    """Rows before the keys of one attention (such as ``decoder.self``), by layer.

    ``rows`` are (P, W); layers may differ in P, or have none. ``is_shifted`` says by layer whether
    tokens keep their distances under a relative bias; ``shift`` is the position of the stack's
    first token where positions are not relative.
    """

    rows: Mapping[int, Tensor]
    is_shifted: Mapping[int, bool]
    shift: int

    @cached_property
    def num_rows(self) -> int:
        """The most rows that a layer has."""
        return max(rows.shape[0] for rows in self.rows.values())

    def front(self, layer: int) -> Front:
        """What stands in front at a layer."""
        rows = self.rows.get(layer)
        if rows is None:
            return NO_FRONT
        return Front(rows.shape[0], self.is_shifted[layer])

    @property
    def num_bytes(self) -> int:
        """Bytes of all rows."""
        return sum(rows.nbytes for rows in self.rows.values())


@dataclass(frozen=True, slots=True)
class Front:
    """``num_rows`` before the keys of one layer; with ``is_shifted`` tokens keep distances."""

    num_rows: int
    is_shifted: bool


NO_FRONT = Front(0, is_shifted=True)


def prepare(parts: Sequence[Any], tensors: Mapping[str, Tensor], target: Target) -> Prepared:
    """Every ``PrefixPart`` by its attention, laid out as the cache is.

    Raises InvalidArtefactError where self-attentions of one stack shift its positions unequally.
    """
    rows: dict[str, dict[int, Tensor]] = {}
    shifted: dict[str, dict[int, bool]] = {}
    shifts: dict[str, set[int]] = {}
    for part in parts:
        stack, layer, kind = part.attention.split(".")
        name, stem = f"{stack}.{kind}", f"{part.attention}/prefix"
        own = [tensors[f"{stem}/{leaf}"] for leaf in ("key", "value")]
        flat = torch.cat([tensor.transpose(0, 1).flatten(1) for tensor in own], dim=1)
        moved = flat.to(target.device, target.dtype).contiguous()
        rows.setdefault(name, {})[int(layer)] = moved
        shifted.setdefault(name, {})[int(layer)] = part.shifts_positions
        if kind == "self" and name not in target.relative:
            shifts.setdefault(name, set()).add(part.num_tokens if part.shifts_positions else 0)
    for name, found in shifts.items():
        if len(found) > 1:
            raise InvalidArtefactError(
                f"prefixes shift the positions of {name} by {sorted(found)}; expected one number"
            )
    return Prepared(
        prefixes={
            name: Prefix(own, shifted[name], max(shifts.get(name, {0})))
            for name, own in rows.items()
        }
    )


def reference(
    q_hQd: Tensor,
    k_kCd: Tensor,
    v_kCd: Tensor,
    bias_hQC: Tensor,
    rows_PW: Tensor | None,
    front_hQP: Tensor,
    scale: float,
) -> Tensor:
    """Context (h, Q, d) of one row, whose prefix the biases ``front_hQP`` belong to.

    ``bias_hQC`` is what is added to the scores of the row's own keys: masks and biases.
    """
    if rows_PW is not None:
        k, d = k_kCd.shape[0], k_kCd.shape[2]
        key_Pkd, value_Pkd = rows_PW.view(-1, 2, k, d).unbind(1)
        k_kCd = torch.cat([key_Pkd.transpose(0, 1), k_kCd], dim=1)
        v_kCd = torch.cat([value_Pkd.transpose(0, 1), v_kCd], dim=1)
        bias_hQC = torch.cat([front_hQP, bias_hQC], dim=2)
    share = q_hQd.shape[0] // k_kCd.shape[0]
    out = []
    for head, q_Qd in enumerate(q_hQd):
        scores = q_Qd @ k_kCd[head // share].t() * scale + bias_hQC[head]
        out.append(scores.softmax(dim=-1) @ v_kCd[head // share])
    return torch.stack(out)
