"""``scale``: ``x *= v`` before a linear map, ``y *= v`` after all that is added to it.

The input of a map that stands alone is scaled before the frozen product. Maps that share their
input are one product, so there a scaled row adds ``(x * (v - 1)) W`` of the member it scales.
:func:`reference` is the formula, token by token.

Shapes: ``T`` tokens, ``D`` input width, ``E`` output width of one member, ``M`` members of the
packed site.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from serving.primitives.layout import PackedSite
from serving.primitives.prepared import Prepared, Target
from serving.primitives.rows import Entries


@dataclass(frozen=True, slots=True)
class SiteScale:
    """What one adapter scales at a packed site.

    ``inputs`` (D,) by member; ``output`` (M*E,), ones where a member's output is not scaled.
    """

    inputs: Mapping[int, Tensor]
    output: Tensor | None

    @property
    def num_bytes(self) -> int:
        """Bytes of all vectors."""
        own = 0 if self.output is None else self.output.nbytes
        return own + sum(v.nbytes for v in self.inputs.values())


def prepare(parts: Sequence[Any], tensors: Mapping[str, Tensor], target: Target) -> Prepared:
    """Gather every ``ScalePart`` by packed site; raises IncompatibleError on unknown sites."""
    inputs: dict[int, dict[int, Tensor]] = {}
    outputs: dict[int, Tensor] = {}
    for part in parts:
        index, member = target.layout.place(part.site)
        site = target.layout.packed[index]
        v = tensors[f"{part.site}/scale/{part.side}"].to(target.device, target.dtype)
        if part.side == "input":
            inputs.setdefault(index, {})[member] = v
            continue
        width = site.member_width
        if index not in outputs:
            outputs[index] = v.new_ones(site.num_members * width)
        outputs[index][member * width : (member + 1) * width] = v
    return Prepared(
        scales={
            index: SiteScale(inputs.get(index, {}), outputs.get(index))
            for index in sorted({*inputs, *outputs})
        }
    )


def reference(
    site: PackedSite,
    x_TD: Tensor,
    weight_DE: Tensor,
    added_TE: Tensor,
    rows: Sequence[SiteScale | None],
) -> Tensor:
    """The whole site, (T, M*E): the frozen product of the scaled input, ``added``, the scale.

    ``added_TE`` is what bias and other effects add; ``rows`` has one entry a token.
    """
    out = []
    width = site.member_width
    for x_D, added_E, scale in zip(x_TD, added_TE, rows, strict=True):
        y_E = added_E.clone()
        for member in range(site.num_members):
            columns = slice(member * width, (member + 1) * width)
            v = None if scale is None else scale.inputs.get(member)
            y_E[columns] += (x_D if v is None else x_D * v) @ weight_DE[:, columns]
        if scale is not None and scale.output is not None:
            y_E *= scale.output
        out.append(y_E)
    return torch.stack(out)


def scaled(x_TD: Tensor, table: Entries) -> Tensor:
    """A copy of ``x_TD`` whose concerned rows are multiplied by their vectors."""
    scaled_TD = x_TD.clone()
    scale_rows(scaled_TD, table)
    return scaled_TD


def scale_rows(y_TE: Tensor, table: Entries) -> None:
    """Multiply the concerned rows of ``y_TE`` by their vectors in place."""
    for rows, (v,) in table.entries(y_TE):
        rows.put(y_TE, rows.take(y_TE) * v)


def add_scaled_input(
    x_TD: Tensor,
    y_TE: Tensor,
    columns: slice,
    product: Callable[[Tensor], Tensor],
    table: Entries,
) -> None:
    """Add ``(x * (v - 1)) W`` of the concerned rows to one member's ``columns`` in place.

    ``product`` is the frozen product of the whole packed site; few rows have such a scale.
    """
    member_TE = y_TE[:, columns]
    for rows, (v,) in table.entries(x_TD):
        rows.add(member_TE, product(rows.take(x_TD) * (v - 1))[:, columns])
