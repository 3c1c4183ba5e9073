"""``bottleneck``: what a sub-layer adds, plus ``scale * (act(z down + c) up + b)``.

All bottlenecks of one block read the same x, u and f, before any of them adds. Rows whose
bottlenecks read the same value, through the same activation and norm, run as one pair of batched
products; smaller ranks are padded with zeros, which add nothing. :func:`reference` is the formula,
token by token.

Shapes: ``T`` tokens, ``n`` rows concerned, ``D`` width of the stream, ``r`` rank.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from adapters_store.primitives.bottleneck import BottleneckActivation, Reads
from serving.primitives.prepared import Prepared, Target
from serving.primitives.rows import Entries, Rows

ACTIVATIONS: Mapping[BottleneckActivation, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda z: functional.gelu(z, approximate="tanh"),
    "silu": functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "leaky_relu": lambda z: functional.leaky_relu(z, 0.01),
    "identity": lambda z: z,
}
_RANK_BUCKETS = (16, 64, 256)


@dataclass(frozen=True, slots=True)
class Form:
    """What bottlenecks share that run together; ``norm_eps`` None means no norm of their own.

    ``bucket`` keeps ranks of unlike size apart.
    """

    reads: Reads
    activation: BottleneckActivation
    norm_eps: float | None
    bucket: int


@dataclass(frozen=True, slots=True)
class Bottleneck:
    """One bottleneck at one block.

    ``tensors`` are ``down`` (D, r), ``down_bias`` (r,), ``up`` (r, D) and ``up_bias`` (D,), the
    last two with the scale folded in, and with a norm its gain and bias (D,).
    """

    form: Form
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class BlockParts:
    """The bottlenecks of one adapter at one block."""

    parts: tuple[Bottleneck, ...]

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.nbytes for part in self.parts for tensor in part.tensors)


def prepare(parts: Sequence[Any], tensors: Mapping[str, Tensor], target: Target) -> Prepared:
    """Every ``BottleneckPart`` by its block; scales are folded in float32."""
    found: dict[str, list[Bottleneck]] = {}
    for part in parts:
        stem = f"{part.block}/bottleneck/{part.reads}"
        names = ["down", "down_bias", "up", "up_bias"]
        if part.norm_eps is not None:
            names += ["norm_gain", "norm_bias"]
        own = [
            tensors[f"{stem}/{name}"].float() * (part.scale if name.startswith("up") else 1.0)
            for name in names
        ]
        bucket = bisect_left(_RANK_BUCKETS, part.rank)
        form = Form(part.reads, part.activation, part.norm_eps, bucket)
        moved = tuple(tensor.to(target.device, target.dtype).contiguous() for tensor in own)
        found.setdefault(part.block, []).append(Bottleneck(form, moved))
    return Prepared(bottlenecks={block: BlockParts(tuple(own)) for block, own in found.items()})


def reference(
    x_TD: Tensor,
    u_TD: Tensor,
    f_TD: Tensor,
    rows: Sequence[BlockParts | None],
    norm: Callable[[Tensor], Tensor] | None,
) -> Tensor:
    """``f`` with every token's own bottlenecks; ``norm`` stands behind the layer, where one does.

    ``rows`` has one entry a token.
    """
    out = []
    for x, u, f, block in zip(x_TD, u_TD, f_TD, rows, strict=True):
        total = x + f if norm is None else norm(x + f)
        read = {"output": f, "sum": total, "residual": x, "input": u}
        added = f.clone()
        for part in () if block is None else block.parts:
            down, down_bias, up, up_bias, *own_norm = part.tensors
            z = read[part.form.reads]
            if part.form.norm_eps is not None:
                gain, bias = own_norm
                z = functional.layer_norm(z, z.shape, gain, bias, part.form.norm_eps)
            added += ACTIVATIONS[part.form.activation](z @ down + down_bias) @ up + up_bias
        out.append(added)
    return torch.stack(out)


def deltas(form: Form, z_TD: Tensor, table: Entries) -> list[tuple[Rows, Tensor]]:
    """What the rows of one form add to ``f``: (rows, (n, D)) each; ``z_TD`` is what they read."""
    found = []
    for rows, (down, down_bias, up, up_bias, *norm) in table.entries(z_TD):
        z_nD = rows.take(z_TD)
        if form.norm_eps is not None:
            gain, bias = norm
            z_nD = functional.layer_norm(z_nD, z_nD.shape[1:], None, None, form.norm_eps)
            z_nD = torch.addcmul(bias, z_nD, gain)
        inner = ACTIVATIONS[form.activation](_affine(z_nD, down, down_bias))
        found.append((rows, _affine(inner, up, up_bias)))
    return found


def _affine(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """``x W + b``: one product for a run of tokens, one batched product for rows of their own."""
    if weight.shape[0] == 1:
        return torch.addmm(bias, x, weight[0])
    return torch.baddbmm(bias.unsqueeze(1), x.unsqueeze(1), weight).squeeze(1)
