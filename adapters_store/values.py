"""Checks over tensor values in a blob: finite everywhere, non-negative where asked.

Floats are read as unsigned integers: a value is not finite exactly when all bits of its exponent
are set, which holds for F32, F16 and BF16 alike and needs no torch.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from adapters_store.errors import InvalidArtefactError
from adapters_store.tensor_file import StoredTensor

if TYPE_CHECKING:
    import numpy as np

_CHUNK_ITEMS = 1 << 20
# dtype: (numpy type of the bits, exponent mask, sign mask)
_BITS = {
    "F32": ("<u4", 0x7F80_0000, 0x8000_0000),
    "F16": ("<u2", 0x7C00, 0x8000),
    "BF16": ("<u2", 0x7F80, 0x8000),
}


def check_values(
    data: bytes, table: Sequence[StoredTensor], non_negative: Collection[str] = ()
) -> None:
    """Raise InvalidArtefactError naming the first tensor and index with a forbidden value.

    ``non_negative`` are names of tensors whose values may not be below zero. Every dtype in
    ``table`` is one of F32, F16, BF16.
    """
    import numpy as np

    for tensor in table:
        kind, exponent, sign = _BITS[tensor.dtype]
        bits = np.frombuffer(data[tensor.begin : tensor.end], dtype=kind)
        for start in range(0, bits.size, _CHUNK_ITEMS):
            chunk = bits[start : start + _CHUNK_ITEMS]
            _refuse((chunk & exponent) == exponent, start, tensor, "NaN or infinity")
            if tensor.name in non_negative:
                below = ((chunk & sign) != 0) & ((chunk & ~np.array(sign, kind)) != 0)
                _refuse(below, start, tensor, "a negative value")


def _refuse(
    is_bad: np.ndarray[Any, np.dtype[np.bool_]], start: int, tensor: StoredTensor, problem: str
) -> None:
    if not is_bad.any():
        return
    import numpy as np

    flat = start + int(is_bad.argmax())
    index = [int(i) for i in np.unravel_index(flat, tensor.shape)]
    raise InvalidArtefactError(
        f"tensor {tensor.name!r} ({tensor.dtype}) holds {problem} at index {index}"
    )
