"""How stored tensors become an artefact's: each function takes what a piece names, in its order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def as_stored(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """The tensor itself."""
    return tensors[0]


def transposed(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """(out, in) to (in, out), as PEFT and artefacts order factors differently."""
    return tensors[0].t().contiguous()


def scaled_rows_transposed(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """(r, in) with its rows times (r, 1), as (in, r), float32."""
    return (tensors[0].float() * tensors[1].float()).t().contiguous()


def flattened(tensors: Sequence[torch.Tensor]) -> torch.Tensor:
    """All values in one vector."""
    return tensors[0].reshape(-1)


def first_rows(tensors: Sequence[torch.Tensor], *, count: int) -> torch.Tensor:
    """The first ``count`` rows."""
    return tensors[0][:count].contiguous()


def scaled(tensors: Sequence[torch.Tensor], *, scale: float) -> torch.Tensor:
    """``scale`` times the tensor, float32."""
    return tensors[0].float() * scale


def scaled_sum(tensors: Sequence[torch.Tensor], *, scale: float) -> torch.Tensor:
    """The first tensor plus ``scale`` times the second, float32."""
    return tensors[0].float() + tensors[1].float() * scale


def zeros(tensors: Sequence[torch.Tensor], *, size: int) -> torch.Tensor:
    """A float32 vector of zeros, for what a format leaves out where it is zero."""
    import torch

    return torch.zeros(size)
