"""Low-rank products of a decode step: one row, one adapter, found by its address.

A row's result is summed in an order that depends on its own adapter alone: the input is read in
parts, as many as its width gives, whose sums are added up in turn, without atomics.

Shapes: ``R`` rows, ``D`` input width, ``E`` output width of a member, ``M`` members, ``r`` rank.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor, float32

from serving.primitives.kernels.fields import NUM_FIELDS, rank_and_place

_PART = 256
_MAX_PARTS = 8
_BLOCK_D = 32
_BLOCK_E = 128


@triton.jit
def _shrink(
    x, x_stride, table, field_stride, u,
    D: tl.constexpr, M: tl.constexpr, CHUNK: tl.constexpr, PARTS: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    row, part, member = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    rank, place = rank_and_place(table, field_stride, row, member)
    if (rank == 0) | (place == 0):
        return
    a = tl.load(table + row).to(tl.pointer_type(x.dtype.element_ty))
    a_stride = tl.load(table + 4 * field_stride + row)
    r = tl.arange(0, BLOCK_R)
    columns = (place - 1) * rank + r
    total = tl.zeros((BLOCK_R,), tl.float32)
    for start in range(0, CHUNK, BLOCK_D):
        d = part * CHUNK + start + tl.arange(0, BLOCK_D)
        x_D = tl.load(x + row * x_stride + d, mask=d < D, other=0.0)
        is_there = (d < D)[:, None] & (r < rank)[None, :]
        a_Dr = tl.load(a + d[:, None] * a_stride + columns[None, :], mask=is_there, other=0.0)
        total += tl.sum(x_D[:, None].to(tl.float32) * a_Dr.to(tl.float32), axis=0)
    tl.store(u + ((row * M + member) * PARTS + part) * BLOCK_R + r, total)


@triton.jit
def _expand(
    u, y, y_stride, table, field_stride,
    E: tl.constexpr, M: tl.constexpr, PARTS: tl.constexpr,
    BLOCK_E: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    row, member = tl.program_id(0), tl.program_id(1)
    rank, place = rank_and_place(table, field_stride, row, member)
    if (rank == 0) | (place == 0):
        return
    b = tl.load(table + field_stride + row).to(tl.pointer_type(y.dtype.element_ty))
    r = tl.arange(0, BLOCK_R)
    u_r = tl.zeros((BLOCK_R,), tl.float32)
    for part in range(PARTS):
        u_r += tl.load(u + ((row * M + member) * PARTS + part) * BLOCK_R + r)
    e = tl.program_id(2) * BLOCK_E + tl.arange(0, BLOCK_E)
    is_there = (r < rank)[:, None] & (e < E)[None, :]
    places = ((place - 1) * rank + r)[:, None] * E + e[None, :]
    b_rE = tl.load(b + places, mask=is_there, other=0.0)
    delta = tl.sum(u_r[:, None] * b_rE.to(tl.float32), axis=0)
    at = y + row * y_stride + member * E + e
    y_E = tl.load(at, mask=e < E, other=0.0).to(tl.float32)
    tl.store(at, (y_E + delta).to(y.dtype.element_ty), mask=e < E)


def add_rows(
    x_RD: Tensor, y_RE: Tensor, table: Tensor, num_members: int, member_width: int, block_r: int
) -> None:
    """Add every row's own product to ``y_RE`` (R, M*E) in place.

    ``table`` (fields, capacity) has what :func:`fields_of` says of each row, zeros where a row has
    none; ``block_r`` is a power of two of at least 16 and the largest rank.
    """
    assert table.shape[0] == NUM_FIELDS
    R, D = x_RD.shape
    parts = max(1, min(_MAX_PARTS, D // _PART))
    chunk = -(-D // (parts * _BLOCK_D)) * _BLOCK_D
    u = x_RD.new_empty(R, num_members, parts, block_r, dtype=float32)
    fields = table.stride(0)
    _shrink[(R, parts, num_members)](
        x_RD, x_RD.stride(0), table, fields, u,
        D=D, M=num_members, CHUNK=chunk, PARTS=parts, BLOCK_D=_BLOCK_D, BLOCK_R=block_r,
    )  # fmt: skip
    _expand[(R, num_members, triton.cdiv(member_width, _BLOCK_E))](
        u, y_RE, y_RE.stride(0), table, fields,
        E=member_width, M=num_members, PARTS=parts, BLOCK_E=_BLOCK_E, BLOCK_R=block_r,
    )  # fmt: skip
