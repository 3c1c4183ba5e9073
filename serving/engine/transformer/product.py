"""Products with frozen matrices, in the layout that this machine multiplies fastest.

oneDNN multiplies by a matrix that was laid out for it once; the plain product lays a copy out at
every call, or does without. Which one is faster depends on the processor, so it is measured.
:class:`Packed` gives every row the same bits whichever and however many its mates are;
:class:`Plain` does where there are more than three rows.

Shapes: ``T`` tokens (or rows), ``D`` input width, ``E`` output width.
"""

from __future__ import annotations

import time
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor, addmm, mm
from torch.nn.functional import pad

_NUM_ROWS = 32
"""Rows that a layout is made for; it serves any number of them as well or nearly so."""

_LEAST_GAIN = 1.1
_PROBE_DE = (512, 1024)
_NUM_PROBES = 4
_NUM_ROUNDS = 5


class FrozenProduct(Protocol):
    """``y = x W (+ bias)`` with a matrix that never changes."""

    def __call__(self, x_TD: Tensor) -> Tensor:
        """Return (T, E), contiguous, a tensor of its own."""

    def unbiased(self, x_TD: Tensor) -> Tensor:
        """The product without the bias."""


class Plain:
    """A contiguous matrix (D, E) under torch's own product; any device."""

    def __init__(self, weight_DE: Tensor, bias_E: Tensor | None) -> None:
        self._weight = weight_DE.contiguous()
        self._bias = bias_E

    def __call__(self, x_TD: Tensor) -> Tensor:
        if self._bias is None:
            return mm(x_TD, self._weight)
        return addmm(self._bias, x_TD, self._weight)

    def unbiased(self, x_TD: Tensor) -> Tensor:
        return mm(x_TD, self._weight)


class Packed:
    """A matrix in oneDNN's blocked layout, which is the only copy kept; CPU."""

    def __init__(self, weight_DE: Tensor, bias_E: Tensor | None) -> None:
        weight_ED = weight_DE.t().contiguous()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight_ED, _NUM_ROWS)
        self._bias = bias_E

    def __call__(self, x_TD: Tensor) -> Tensor:
        return _packed_product(x_TD, self._weight, self._bias)

    def unbiased(self, x_TD: Tensor) -> Tensor:
        return _packed_product(x_TD, self._weight, None)


def frozen_product(weight_DE: Tensor, bias_E: Tensor | None = None) -> FrozenProduct:
    """The faster form of a product with ``weight_DE`` on its device."""
    if weight_DE.device.type == "cpu" and packing_pays(weight_DE.dtype):
        return Packed(weight_DE, bias_E)
    return Plain(weight_DE, bias_E)


@lru_cache
def packing_pays(dtype: torch.dtype) -> bool:
    """Whether packed products of 32 rows take this machine a tenth less time; asked once."""
    if not _can_pack(dtype):
        return False
    D, E = _PROBE_DE
    with torch.inference_mode():
        x = torch.ones(_NUM_ROWS, D, dtype=dtype)
        weights = [torch.ones(D, E, dtype=dtype) for _ in range(_NUM_PROBES)]
        packed = [Packed(weight, None) for weight in weights]
        plain = [Plain(weight, None) for weight in weights]
        rounds = [(_seconds(packed, x), _seconds(plain, x)) for _ in range(_NUM_ROUNDS)]
    packed_s, plain_s = (min(times) for times in zip(*rounds, strict=True))
    is_faster: bool = packed_s * _LEAST_GAIN < plain_s
    return is_faster


def _can_pack(dtype: torch.dtype) -> bool:
    """Whether this build of torch has the packed product, which is not a public interface."""
    ops = torch.ops.mkldnn
    if dtype not in (torch.float32, torch.bfloat16) or not hasattr(ops, "_reorder_linear_weight"):
        return False
    return dtype == torch.float32 or bool(ops._is_mkldnn_bf16_supported())


def _packed_product(x_TD: Tensor, weight: Tensor, bias_E: Tensor | None) -> Tensor:
    T = x_TD.shape[0]
    num_rows = rounded_up(T)
    if num_rows != T:
        x_TD = pad(x_TD, (0, 0, 0, num_rows - T))
    found: Tensor = torch.ops.mkldnn._linear_pointwise(x_TD, weight, bias_E, "none", [], "")
    return found if num_rows == T else found[:T]


def rounded_up(num_rows: int) -> int:
    """The number of rows that a product of ``num_rows`` is made with: at most an eighth more.

    oneDNN compiles a product for every number of rows that it meets, half a millisecond and half a
    megabyte each; these are 16 numbers up to 16 and 8 for every doubling above.
    """
    step = 1 << max(0, num_rows.bit_length() - 4)
    return -(-num_rows // step) * step


def _seconds(products: list[Packed] | list[Plain], x: Tensor) -> float:
    start = time.perf_counter()
    for product in products:
        product(x)
    return time.perf_counter() - start
