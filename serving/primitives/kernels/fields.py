"""What a kernel knows of one adapter's factors at one packed site: five numbers.

Factors stay where they are; a table of numbers says where that is, so that rows and runs of any
adapters are one launch and a row that joins copies nothing.
"""

from __future__ import annotations

import triton
import triton.language as tl

from serving.primitives.factors import Factors

NUM_FIELDS = 5
MAX_RANK = 128
MIN_BLOCK = 16

NO_FIELDS = (0, 0, 0, 0, 0)


def fields_of(factors: Factors) -> tuple[int, int, int, int, int]:
    """Addresses of ``a`` and ``b``, the rank, the members' places, and the row stride of ``a``.

    Member ``j`` is the ``p``-th adapted one where byte ``j`` of the places is ``p + 1``; it is not
    adapted where that byte is 0.
    """
    places = sum((p + 1) << (8 * member) for p, member in enumerate(factors.members))
    a, b = factors.a, factors.b
    assert a.is_contiguous()
    assert b.is_contiguous()
    return a.data_ptr(), b.data_ptr(), factors.rank, places, a.stride(0)


@triton.jit
def rank_and_place(table, field_stride, number, member):  # type: ignore[no-untyped-def]
    """Within a kernel: the rank, and the member's place, of the ``number``-th column.

    The place is that of :func:`fields_of`, counted from 1; 0 where the member is not adapted.
    """
    rank = tl.load(table + 2 * field_stride + number)
    place = (tl.load(table + 3 * field_stride + number) >> (8 * member)) & 255
    return rank, place


def block_of(rank: int) -> int:
    """The smallest block of a kernel's products that holds that rank, or width of a head."""
    return max(MIN_BLOCK, 1 << (rank - 1).bit_length())
