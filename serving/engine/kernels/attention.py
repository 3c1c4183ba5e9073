"""Attention of one query a row over keys and values that lie at an address of its own.

What a row sees is a length, so a launch depends on no row's length: it holds in a CUDA graph while
rows grow, join and leave. The keys are read in blocks, in order, whatever the row's mates are.

Shapes: ``R`` rows, ``h`` query heads, ``k`` key-value heads, ``g`` = h / k, ``d`` head width,
``C`` keys of a row, ``W`` = 2 k d: keys and values of a position, keys first.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from serving.primitives.kernels.fields import block_of
from serving.primitives.kernels.interpreting import WIDENS

_BLOCK_C = 32


@triton.jit
def _store(kv, kv_stride, bases, places, R, layer, W: tl.constexpr, BLOCK_W: tl.constexpr):
    row = tl.program_id(0)
    length = tl.load(places + 2 * R + row)
    if length == 0:
        return
    base = tl.load(bases + tl.load(places + row) + layer)
    first = tl.load(places + R + row) + (length - 1) * W
    at = base.to(tl.pointer_type(kv.dtype.element_ty)) + first
    w = tl.program_id(1) * BLOCK_W + tl.arange(0, BLOCK_W)
    tl.store(at + w, tl.load(kv + row * kv_stride + w, mask=w < W), mask=w < W)


@triton.jit
def _attend(
    q, q_stride, out, bases, places, R, layer, bias, reach, scale, softcap, window,
    h: tl.constexpr, k: tl.constexpr, d: tl.constexpr,
    HAS_BIAS: tl.constexpr, HAS_CAP: tl.constexpr, WIDENS: tl.constexpr,
    BLOCK_G: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_D: tl.constexpr,
):  # fmt: skip
    row, group = tl.program_id(0), tl.program_id(1)
    length = tl.load(places + 2 * R + row)
    g = tl.arange(0, BLOCK_G)
    e = tl.arange(0, BLOCK_D)
    is_head = (g < h // k)[:, None] & (e < d)[None, :]
    places_gd = (group * (h // k) + g)[:, None] * d + e[None, :]
    total = tl.zeros((BLOCK_G, BLOCK_D), tl.float32)
    mass = tl.zeros((BLOCK_G,), tl.float32)
    if length > 0:
        base = tl.load(bases + tl.load(places + row) + layer)
        kv = base.to(tl.pointer_type(q.dtype.element_ty)) + tl.load(places + R + row)
        q_gd = tl.load(q + row * q_stride + places_gd, mask=is_head, other=0.0)
        if WIDENS:
            q_gd = q_gd.to(tl.float32)
        most = tl.full((BLOCK_G,), float("-inf"), tl.float32)
        first = tl.maximum(length - window, 0) // BLOCK_C * BLOCK_C
        for start in range(first, length, BLOCK_C):
            c = start + tl.arange(0, BLOCK_C)
            is_seen = (c < length) & (c >= length - window)
            at = kv + c[:, None] * (2 * k * d) + group * d + e[None, :]
            is_there = is_seen[:, None] & (e < d)[None, :]
            key_Cd = tl.load(at, mask=is_there, other=0.0)
            value_Cd = tl.load(at + k * d, mask=is_there, other=0.0)
            if WIDENS:
                key_Cd, value_Cd = key_Cd.to(tl.float32), value_Cd.to(tl.float32)
            scores = tl.dot(q_gd, tl.trans(key_Cd), input_precision="ieee") * scale
            if HAS_CAP:
                scores = softcap * (2.0 * tl.sigmoid(2.0 * scores / softcap) - 1.0)
            if HAS_BIAS:
                at_bias = (c - (length - 1) + reach)[None, :] * h + (group * (h // k) + g)[:, None]
                has_bias = is_seen[None, :] & (g < h // k)[:, None]
                scores += tl.load(bias + at_bias, mask=has_bias, other=0.0).to(tl.float32)
            scores = tl.where(is_seen[None, :], scores, float("-inf"))
            higher = tl.maximum(most, tl.max(scores, axis=1))
            fades = tl.exp(most - higher)
            weights = tl.exp(scores - higher[:, None])
            mass = mass * fades + tl.sum(weights, axis=1)
            weights = weights.to(value_Cd.dtype)
            own = tl.dot(weights, value_Cd, input_precision="ieee")
            total = total * fades[:, None] + own
            most = higher
    mass = tl.where(mass == 0.0, 1.0, mass)
    context = (total / mass[:, None]).to(out.dtype.element_ty)
    tl.store(out + row * (h * d) + places_gd, context, mask=is_head)


def store_rows(kv_RW: Tensor, bases: Tensor, places: Tensor, layer: int) -> None:
    """Write each row's own keys and values behind those it has.

    ``bases`` int64 are addresses by slab and layer. ``places`` (3, R) int64 says of a row where its
    slab's addresses begin, at which element of a layer the row begins, and how many keys it has
    with this one; a row of length 0 writes nothing.
    """
    R, W = kv_RW.shape
    block = min(1024, triton.next_power_of_2(W))
    _store[(R, triton.cdiv(W, block))](
        kv_RW, kv_RW.stride(0), bases, places, places.stride(0), layer, W=W, BLOCK_W=block
    )


def attend_rows(
    q_RI: Tensor,
    out_RI: Tensor,
    bases: Tensor,
    places: Tensor,
    layer: int,
    heads: tuple[int, int, int],
    scale: float,
    *,
    softcap: float | None = None,
    window: int | None = None,
    bias: tuple[Tensor, int] | None = None,
) -> None:
    """Write the rows' contexts to ``out_RI`` (R, h*d), zeros where the length is 0.

    ``heads`` is (h, k, d). ``bases`` and ``places`` are as in :func:`store_rows`. ``bias`` holds a
    table (distances, h) and the row of distance 0; ``window`` is how many of the last keys count.
    """
    h, k, d = heads
    R = q_RI.shape[0]
    table, reach = (q_RI, 0) if bias is None else bias
    _attend[(R, k)](
        q_RI, q_RI.stride(0), out_RI, bases, places, places.stride(0), layer, table, reach, scale,
        1.0 if softcap is None else softcap, 1 << 30 if window is None else window,
        h=h, k=k, d=d, HAS_BIAS=bias is not None, HAS_CAP=softcap is not None, WIDENS=WIDENS,
        BLOCK_G=block_of(h // k), BLOCK_C=_BLOCK_C, BLOCK_D=block_of(d),
    )  # fmt: skip
