"""``override``: a row's own norm gain or bias, or its own bias of a linear map.

Rows with vectors of their own at a norm are normed once more with them; a bias of their own is
added at its site as the difference to the frozen one. :func:`reference` is the formula.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from serving.primitives.prepared import Prepared, Target


@dataclass(frozen=True, slots=True)
class NormVectors:
    """A row's own gain and bias (D,) at one norm, as the model stores them; RMS has no bias."""

    gain: Tensor
    bias: Tensor | None

    @property
    def num_bytes(self) -> int:
        """Bytes of the vectors."""
        return self.gain.nbytes + (0 if self.bias is None else self.bias.nbytes)


@dataclass(frozen=True, slots=True)
class BiasShift:
    """What a row's own biases at a packed site add to the frozen ones: (M*E,)."""

    shift: Tensor

    @property
    def num_bytes(self) -> int:
        """Bytes of the vector."""
        return self.shift.nbytes


def reference(frozen: Tensor | None, operation: str, value: Tensor) -> Tensor:
    """The row's own vector; a vector that the backbone does not have counts as zeros."""
    return value if operation == "replace" or frozen is None else frozen + value


def prepare(parts: Sequence[Any], tensors: Mapping[str, Tensor], target: Target) -> Prepared:
    """Resolve every ``OverridePart`` against the frozen vectors, in float32."""
    norms: dict[str, dict[str, Tensor]] = {}
    biases: dict[int, Tensor] = {}
    for part in parts:
        place, _, leaf = part.vector.rpartition(".")
        value = tensors[f"{part.vector}/override/value"].to(target.device, torch.float32)
        frozen = target.vectors.get(part.vector)
        own = reference(None if frozen is None else frozen.float(), part.operation, value)
        if place not in target.layout:
            norms.setdefault(place, {})[leaf] = own.to(target.dtype)
            continue
        index, member = target.layout.place(place)
        site = target.layout.packed[index]
        if index not in biases:
            biases[index] = own.new_zeros(site.num_members * site.member_width)
        columns = slice(member * site.member_width, (member + 1) * site.member_width)
        biases[index][columns] = own if frozen is None else own - frozen.float()
    return Prepared(
        norms={name: _vectors(name, own, target) for name, own in norms.items()},
        biases={index: BiasShift(shift.to(target.dtype)) for index, shift in biases.items()},
    )


def _vectors(name: str, own: Mapping[str, Tensor], target: Target) -> NormVectors:
    frozen = target.vectors
    bias = own.get("bias", frozen.get(f"{name}.bias"))
    return NormVectors(own["gain"] if "gain" in own else frozen[f"{name}.gain"], bias)
