"""The mixture of a decode step over its shared bank: two launches for all rows of one bank.

``z = sum_h x_h (sum_k w[h,k] A[h,k])`` is summed part by part of the input, ``y_h += z (sum_k
w[h,k] B[h,k])`` from the parts in turn: no factor is composed, nothing depends on a row's mates.

Shapes: ``n`` rows of the bank, ``D``/``E`` in/out width, ``H`` heads, ``K`` skills, ``r`` rank,
``m`` adapted members of the packed site.
"""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor, float32

from serving.primitives.kernels.interpreting import WIDENS

_BLOCK_N = 16
_BLOCK_D = 32
_BLOCK_E = 64
_PART = 256
_MAX_PARTS = 8


@triton.jit
def _contract(
    x, x_stride, rows, w, a, z, n,
    m: tl.constexpr, H: tl.constexpr, K: tl.constexpr, RANK: tl.constexpr, HEAD_D: tl.constexpr,
    PARTS: tl.constexpr, CHUNK: tl.constexpr, WIDENS: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    member, slot = tl.program_id(1), tl.program_id(2)
    head, part = slot // PARTS, slot % PARTS
    i = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.load(rows + i, mask=i < n, other=-1)
    if tl.max(row, axis=0) < 0:
        return
    r = tl.arange(0, BLOCK_R)
    total = tl.zeros((BLOCK_N, BLOCK_R), tl.float32)
    for k in range(K):
        u = tl.zeros((BLOCK_N, BLOCK_R), tl.float32)
        for start in range(0, CHUNK, BLOCK_D):
            d = part * CHUNK + start + tl.arange(0, BLOCK_D)
            has_x = (row >= 0)[:, None] & (d < HEAD_D)[None, :]
            at = x + row[:, None] * x_stride + head * HEAD_D + d[None, :]
            x_nD = tl.load(at, mask=has_x, other=0.0)
            columns = (member * K + k) * RANK + r
            has_a = (d < HEAD_D)[:, None] & (r < RANK)[None, :]
            at = a + (head * HEAD_D + d)[:, None] * (m * K * RANK) + columns[None, :]
            a_Dr = tl.load(at, mask=has_a, other=0.0)
            if WIDENS:
                x_nD, a_Dr = x_nD.to(tl.float32), a_Dr.to(tl.float32)
            u = tl.dot(x_nD, a_Dr, u, input_precision="ieee")
        w_n = tl.load(w + ((i * m + member) * H + head) * K + k, mask=i < n, other=0.0)
        total += w_n.to(tl.float32)[:, None] * u
    at = z + ((i * m + member) * (H * PARTS) + slot)[:, None] * BLOCK_R + r[None, :]
    tl.store(at, total, mask=(i < n)[:, None])


@triton.jit(do_not_specialize=["members"])
def _expand(
    z, y, y_stride, rows, w, b, members, n,
    m: tl.constexpr, H: tl.constexpr, K: tl.constexpr, RANK: tl.constexpr, HEAD_E: tl.constexpr,
    SLOTS: tl.constexpr, WIDENS: tl.constexpr,
    BLOCK_N: tl.constexpr, BLOCK_E: tl.constexpr, BLOCK_R: tl.constexpr,
):  # fmt: skip
    member, head = tl.program_id(1) // H, tl.program_id(1) % H
    i = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    row = tl.load(rows + i, mask=i < n, other=-1)
    if tl.max(row, axis=0) < 0:
        return
    r = tl.arange(0, BLOCK_R)
    z_nr = tl.zeros((BLOCK_N, BLOCK_R), tl.float32)
    for slot in range(SLOTS):
        at = z + ((i * m + member) * SLOTS + slot)[:, None] * BLOCK_R + r[None, :]
        z_nr += tl.load(at, mask=(i < n)[:, None], other=0.0)
    e = tl.program_id(2) * BLOCK_E + tl.arange(0, BLOCK_E)
    column = ((members >> (8 * member)) & 255) * (H * HEAD_E) + head * HEAD_E
    at = y + row[:, None] * y_stride + column + e[None, :]
    is_output = (row >= 0)[:, None] & (e < HEAD_E)[None, :]
    y_nE = tl.load(at, mask=is_output, other=0.0).to(tl.float32)
    for k in range(K):
        w_n = tl.load(w + ((i * m + member) * H + head) * K + k, mask=i < n, other=0.0)
        places = ((member * H + head) * K + k) * RANK + r
        has_b = (r < RANK)[:, None] & (e < HEAD_E)[None, :]
        b_rE = tl.load(b + places[:, None] * HEAD_E + e[None, :], mask=has_b, other=0.0)
        v_nr = (w_n.to(tl.float32)[:, None] * z_nr).to(b_rE.dtype)
        if WIDENS:
            v_nr, b_rE = v_nr.to(tl.float32), b_rE.to(tl.float32)
        y_nE = tl.dot(v_nr, b_rE, y_nE, input_precision="ieee")
    tl.store(at, y_nE.to(y.dtype.element_ty), mask=is_output)


def add_bank(
    x_RD: Tensor,
    y_RE: Tensor,
    rows_n: Tensor,
    w_nmHK: Tensor,
    a_HDq: Tensor,
    b_qE: Tensor,
    members: tuple[int, ...],
    block_r: int,
) -> None:
    """Add the mixtures of the rows ``rows_n`` to ``y_RE`` in place; -1 stands for no row.

    ``a_HDq`` (H, D/H, m*K*r) and ``b_qE`` (m*H, K*r, E/H) are the bank's at one packed site,
    ``members`` the m adapted ones; ``block_r`` is a power of two of at least 16 and r.
    """
    n, m, H, K = w_nmHK.shape
    head_d, head_e = a_HDq.shape[1], b_qE.shape[2]
    rank = b_qE.shape[1] // K
    parts = max(1, min(_MAX_PARTS, head_d // _PART))
    chunk = -(-head_d // (parts * _BLOCK_D)) * _BLOCK_D
    z = x_RD.new_empty(n, m, H * parts, block_r, dtype=float32)
    blocks = triton.cdiv(n, _BLOCK_N)
    packed = sum(member << (8 * j) for j, member in enumerate(members))
    _contract[(blocks, m, H * parts)](
        x_RD, x_RD.stride(0), rows_n, w_nmHK, a_HDq, z, n,
        m=m, H=H, K=K, RANK=rank, HEAD_D=head_d, PARTS=parts, CHUNK=chunk, WIDENS=WIDENS,
        BLOCK_N=_BLOCK_N, BLOCK_D=_BLOCK_D, BLOCK_R=block_r,
    )  # fmt: skip
    _expand[(blocks, m * H, triton.cdiv(head_e, _BLOCK_E))](
        z, y_RE, y_RE.stride(0), rows_n, w_nmHK, b_qE, packed, n,
        m=m, H=H, K=K, RANK=rank, HEAD_E=head_e, SLOTS=H * parts, WIDENS=WIDENS,
        BLOCK_N=_BLOCK_N, BLOCK_E=_BLOCK_E, BLOCK_R=block_r,
    )  # fmt: skip
