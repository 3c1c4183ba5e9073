"""``bottleneck``: what a sub-layer adds, plus ``scale * (act(z down + c) up + b)``.

All bottlenecks of one block read the same x, u and f: that of the sub-layer with every effect on
its linear maps and norms, before any bottleneck.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence

import torch
from torch.nn import functional

from adapters_store.families.anatomy import Block
from adapters_store.primitives.bottleneck import BottleneckActivation, BottleneckPart
from training.reference.stage import Call, Stage

_ACTIVATIONS: Mapping[BottleneckActivation, Callable[[torch.Tensor], torch.Tensor]] = {
    "relu": torch.relu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda z: functional.gelu(z, approximate="tanh"),
    "silu": functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "leaky_relu": lambda z: functional.leaky_relu(z, 0.01),
    "identity": lambda z: z,
}


def install(parts: Sequence[BottleneckPart], stage: Stage) -> None:
    """Add each block's bottlenecks to what its sub-layer adds."""
    of_block: dict[str, list[BottleneckPart]] = defaultdict(list)
    for part in parts:
        of_block[part.block].append(part)
    for name, group in of_block.items():
        _install(group, stage, stage.shapes.block(name))


def _install(parts: Sequence[BottleneckPart], stage: Stage, block: Block) -> None:
    seen: dict[str, torch.Tensor] = {}
    norm = None if block.post_norm_path is None else stage.module(block.post_norm_path)

    def read_x(call: Call) -> None:
        seen["x"] = call.get(block.residual.argument)

    def read_u(call: Call, u: torch.Tensor) -> torch.Tensor:
        seen["u"] = u
        return u

    def add(call: Call, f: torch.Tensor) -> torch.Tensor:
        x = seen.pop("x")
        total = x + f
        read = {
            "output": f,
            "sum": total if norm is None else norm(total),
            "residual": x,
            "input": seen.pop("u", x),
        }
        result = f
        for part in parts:
            result = result + _delta(part, stage.tensors, read[part.reads])
        return result

    stage.before(block.residual.module_path, read_x, is_first=True)
    if block.pre_norm_path is not None:
        stage.after(block.pre_norm_path, read_u)
    stage.after(block.output_path, add)


def _delta(
    part: BottleneckPart, tensors: Mapping[str, torch.Tensor], z: torch.Tensor
) -> torch.Tensor:
    stem = f"{part.block}/bottleneck/{part.reads}"
    if part.norm_eps is not None:
        gain, bias = tensors[f"{stem}/norm_gain"], tensors[f"{stem}/norm_bias"]
        z = functional.layer_norm(z, gain.shape, gain, bias, part.norm_eps)
    inner = _ACTIVATIONS[part.activation](
        z @ tensors[f"{stem}/down"] + tensors[f"{stem}/down_bias"]
    )
    return part.scale * (inner @ tensors[f"{stem}/up"] + tensors[f"{stem}/up_bias"])
