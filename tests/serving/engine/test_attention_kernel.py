"""Attention by address against the formula, row by row: on a GPU or in Triton's interpreter."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")
from serving.engine.kernels.attention import attend_rows, store_rows

DEVICE = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
POSITIONS = (40, 64)
ROWS = ((0, 2, 5), (1, 0, 63), (0, 0, 33), (0, 0, 0), (1, 1, 1))
"""Slab, place and keys of each row; the fourth is padding."""
NUM_LAYERS, LAYER, REACH, SCALE = 2, 1, 64, 0.3


def context_of(
    q_hd: Tensor,
    kv_C2kd: Tensor,
    softcap: float | None,
    window: int | None,
    bias: Tensor | None,
) -> Tensor:
    length, _, k, _ = kv_C2kd.shape
    out = []
    for head, q in enumerate(q_hd):
        key, value = kv_C2kd[:, :, head * k // len(q_hd)].unbind(1)
        scores = key @ q * SCALE
        if softcap is not None:
            scores = torch.tanh(scores / softcap) * softcap
        if bias is not None:
            distances = torch.arange(length, device=DEVICE) - (length - 1)
            scores = scores + bias[distances + REACH, head]
        if window is not None:
            scores[: max(0, length - window)] = float("-inf")
        out.append(scores.softmax(0) @ value)
    return torch.stack(out)


@pytest.mark.parametrize("dtype", TOLERANCE, ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    ("heads", "softcap", "window", "has_bias"),
    [
        ((4, 2, 8), None, None, False),
        ((4, 4, 8), None, None, True),
        ((8, 1, 20), 5.0, 7, False),
        ((4, 4, 16), None, 33, False),
    ],
    ids=["grouped", "relative", "capped window of one head", "window at a block's border"],
)
def test_rows_attend_over_their_own_keys_and_keep_their_new_one(
    dtype: torch.dtype,
    heads: tuple[int, int, int],
    softcap: float | None,
    window: int | None,
    has_bias: bool,
) -> None:
    torch.manual_seed(0)
    h, k, d = heads
    width = 2 * k * d
    slabs = [
        [torch.randn(3, positions, width).to(DEVICE, dtype) for _ in range(NUM_LAYERS)]
        for positions in POSITIONS
    ]
    bases = torch.tensor([layer.data_ptr() for slab in slabs for layer in slab], device=DEVICE)
    places = torch.tensor(
        [
            [slab * NUM_LAYERS for slab, _, _ in ROWS],
            [place * POSITIONS[slab] * width for slab, place, _ in ROWS],
            [length for *_, length in ROWS],
        ],
        device=DEVICE,
    )
    qkv = torch.randn(len(ROWS), h * d + width).to(DEVICE, dtype)
    q, kv, out = qkv[:, : h * d], qkv[:, h * d :], qkv.new_empty(len(ROWS), h * d)
    bias = torch.randn(2 * REACH + 1, h).to(DEVICE, dtype) if has_bias else None
    expected_slabs = [[layer.clone() for layer in slab] for slab in slabs]
    for row, (slab, place, length) in enumerate(ROWS):
        if length:
            expected_slabs[slab][LAYER][place, length - 1] = kv[row]
    store_rows(kv, bases, places, LAYER)
    for slab, expected in zip(slabs, expected_slabs, strict=True):
        for layer, own in zip(slab, expected, strict=True):
            assert torch.equal(layer, own)
    table = None if bias is None else (bias, REACH)
    attend_rows(
        q, out, bases, places, LAYER, heads, SCALE, softcap=softcap, window=window, bias=table
    )
    for row, (slab, place, length) in enumerate(ROWS):
        if not length:
            assert not out[row].any()
            continue
        own = slabs[slab][LAYER][place, :length].double().view(length, 2, k, d)
        wide = None if bias is None else bias.double()
        found = context_of(q[row].double().view(h, d), own, softcap, window, wide)
        torch.testing.assert_close(
            out[row].double(), found.flatten(), atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype]
        )
