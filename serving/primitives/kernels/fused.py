"""The backend of Triton's kernels, and a first run that shows whether a device takes them."""

from __future__ import annotations

import subprocess

import torch
from triton.errors import TritonError

from adapters_store.errors import UnavailableError
from serving.primitives.backend import Backend
from serving.primitives.kernels.bank import add_bank
from serving.primitives.kernels.fields import MIN_BLOCK, NUM_FIELDS
from serving.primitives.kernels.mixtures import mixtures_of
from serving.primitives.kernels.pointers import PointerTable
from serving.primitives.kernels.rows import add_rows
from serving.primitives.kernels.runs import PointerSegments
from serving.primitives.kernels.segments import add_segments

_WIDTH, _RANK, _ROWS = 32, 4, 2


def _check(device: torch.device, dtype: torch.dtype) -> None:
    """Compile and run every kernel on small ones; their sums are known."""
    x = torch.ones(_ROWS, _WIDTH, dtype=dtype, device=device)
    a = torch.ones(_WIDTH, _RANK, dtype=dtype, device=device)
    b = torch.ones(1, _RANK, _WIDTH, dtype=dtype, device=device)
    fields = torch.tensor([a.data_ptr(), b.data_ptr(), _RANK, 1, _RANK], device=device)
    table = fields.view(NUM_FIELDS, 1).expand(NUM_FIELDS, _ROWS).contiguous()
    chunks = torch.tensor([[0, 0, _ROWS]], device=device)
    rows = torch.arange(_ROWS, device=device)
    weights = torch.ones(_ROWS, 1, 1, 1, dtype=torch.float32, device=device)
    y = torch.zeros(3, _ROWS, _WIDTH, dtype=dtype, device=device)
    try:
        add_rows(x, y[0], table, 1, _WIDTH, MIN_BLOCK)
        add_segments(x, y[1], chunks, table, 1, _WIDTH, MIN_BLOCK)
        add_bank(x, y[2], rows, weights, a[None], b, (0,), MIN_BLOCK)
        is_right = bool((y == _WIDTH * _RANK).all())
    except (TritonError, RuntimeError, OSError, subprocess.SubprocessError) as error:
        lines = str(error).splitlines() or [""]
        raise UnavailableError(
            f"Triton's kernels do not run on {device}: {type(error).__name__}: {lines[0]}"
        ) from error
    if not is_right:
        raise UnavailableError(f"Triton's kernels compute wrong sums on {device}")


BACKEND = Backend("triton", PointerTable, mixtures_of, PointerSegments, _check)
