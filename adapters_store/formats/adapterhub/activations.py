"""Activation names of ``adapters``: what each one computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters_store.primitives.bottleneck import BottleneckActivation

if TYPE_CHECKING:
    import torch

ACTIVATIONS: dict[str, BottleneckActivation] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "leakyrelu": "leaky_relu",
    "leaky_relu": "leaky_relu",
    "linear": "identity",
}
"""The library's names, in lower case as it looks them up, and the primitive's."""

UNVERSIONED = {"gelu": "gelu_new", "gelu_orig": "gelu"}
"""What names meant in files without a version."""


def activate(name: BottleneckActivation, values: torch.Tensor) -> torch.Tensor:
    """The activation of ``values``, as the primitive defines it."""
    from torch.nn import functional

    if name == "identity":
        return values
    if name == "gelu_tanh":
        return functional.gelu(values, approximate="tanh")
    found: torch.Tensor = getattr(functional, name)(values)
    return found
