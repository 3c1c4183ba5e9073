"""Low-rank products of a prefill step: runs of tokens, each of one adapter found by its address.

Runs are cut into chunks of ``BLOCK_T`` tokens; one launch covers the chunks of all adapters.

Shapes: ``T`` tokens, ``D`` input width, ``E`` output width of a member, ``M`` members, ``r`` rank.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from serving.primitives.kernels.fields import rank_and_place
from serving.primitives.kernels.interpreting import WIDENS

BLOCK_T = 32
_BLOCK_D = 32
_BLOCK_E = 64


@triton.jit
def _shrink(
    x, x_stride, chunks, table, field_stride, u,
    D: tl.constexpr, M: tl.constexpr, WIDENS: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    chunk, member = tl.program_id(0), tl.program_id(1)
    run = tl.load(chunks + 3 * chunk)
    stop = tl.load(chunks + 3 * chunk + 2)
    rank, place = rank_and_place(table, field_stride, run, member)
    if (rank == 0) | (place == 0):
        return
    a = tl.load(table + run).to(tl.pointer_type(x.dtype.element_ty))
    a_stride = tl.load(table + 4 * field_stride + run)
    t = tl.load(chunks + 3 * chunk + 1) + tl.arange(0, BLOCK_T)
    r = tl.arange(0, BLOCK_R)
    columns = (place - 1) * rank + r
    total = tl.zeros((BLOCK_T, BLOCK_R), tl.float32)
    for start in range(0, D, BLOCK_D):
        d = start + tl.arange(0, BLOCK_D)
        is_token = (t < stop)[:, None] & (d < D)[None, :]
        x_TD = tl.load(x + t[:, None] * x_stride + d[None, :], mask=is_token, other=0.0)
        is_factor = (d < D)[:, None] & (r < rank)[None, :]
        a_Dr = tl.load(a + d[:, None] * a_stride + columns[None, :], mask=is_factor, other=0.0)
        if WIDENS:
            x_TD, a_Dr = x_TD.to(tl.float32), a_Dr.to(tl.float32)
        total = tl.dot(x_TD, a_Dr, total, input_precision="ieee")
    at = u + (t[:, None] * M + member) * BLOCK_R + r[None, :]
    tl.store(at, total.to(u.dtype.element_ty), mask=(t < stop)[:, None])


@triton.jit
def _expand(
    u, y, y_stride, chunks, table, field_stride,
    E: tl.constexpr, M: tl.constexpr, WIDENS: tl.constexpr,
    BLOCK_T: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    chunk, member = tl.program_id(0), tl.program_id(1)
    run = tl.load(chunks + 3 * chunk)
    stop = tl.load(chunks + 3 * chunk + 2)
    rank, place = rank_and_place(table, field_stride, run, member)
    if (rank == 0) | (place == 0):
        return
    b = tl.load(table + field_stride + run).to(tl.pointer_type(y.dtype.element_ty))
    t = tl.load(chunks + 3 * chunk + 1) + tl.arange(0, BLOCK_T)
    r = tl.arange(0, BLOCK_R)
    e = tl.program_id(2) * BLOCK_E + tl.arange(0, BLOCK_E)
    is_token = (t < stop)[:, None]
    u_Tr = tl.load(u + (t[:, None] * M + member) * BLOCK_R + r[None, :], mask=is_token, other=0.0)
    is_factor = (r < rank)[:, None] & (e < E)[None, :]
    places = ((place - 1) * rank + r)[:, None] * E + e[None, :]
    b_rE = tl.load(b + places, mask=is_factor, other=0.0)
    at = y + t[:, None] * y_stride + member * E + e[None, :]
    is_output = is_token & (e < E)[None, :]
    y_TE = tl.load(at, mask=is_output, other=0.0).to(tl.float32)
    if WIDENS:
        u_Tr, b_rE = u_Tr.to(tl.float32), b_rE.to(tl.float32)
    y_TE = tl.dot(u_Tr, b_rE, y_TE, input_precision="ieee")
    tl.store(at, y_TE.to(y.dtype.element_ty), mask=is_output)


def chunks_of(runs: list[tuple[int, int]]) -> list[tuple[int, int, int]]:
    """(run, start, stop) of every piece of ``BLOCK_T`` tokens; runs are half-open token ranges."""
    return [
        (number, first, stop)
        for number, (start, stop) in enumerate(runs)
        for first in range(start, stop, BLOCK_T)
    ]


def add_segments(
    x_TD: Tensor,
    y_TE: Tensor,
    chunks: Tensor,
    table: Tensor,
    num_members: int,
    member_width: int,
    block_r: int,
) -> None:
    """Add the runs' products to ``y_TE`` (T, M*E) in place.

    ``chunks`` (n, 3) int64 are those of :func:`chunks_of`, ``table`` (fields, runs) what
    :func:`fields_of` says of each run; ``block_r`` is a power of two of at least 16 and the
    largest rank.
    """
    T, D = x_TD.shape
    u = x_TD.new_empty(T, num_members, block_r)
    fields, n = table.stride(0), chunks.shape[0]
    _shrink[(n, num_members)](
        x_TD, x_TD.stride(0), chunks, table, fields, u,
        D=D, M=num_members, WIDENS=WIDENS, BLOCK_T=BLOCK_T, BLOCK_D=_BLOCK_D, BLOCK_R=block_r,
    )  # fmt: skip
    _expand[(n, num_members, triton.cdiv(member_width, _BLOCK_E))](
        u, y_TE, y_TE.stride(0), chunks, table, fields,
        E=member_width, M=num_members, WIDENS=WIDENS,
        BLOCK_T=BLOCK_T, BLOCK_E=_BLOCK_E, BLOCK_R=block_r,
    )  # fmt: skip
