"""The safetensors header, read without torch and before any tensor's bytes are looked at.

A file is 8 bytes (header length N, little endian), N bytes of JSON, then the tensors' bytes.
Offsets are half-open byte ranges ``[begin, end)`` relative to the end of the header; here they must
cover the rest of the file exactly, without gap or overlap.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from adapters_store.canonical import strict_json
from adapters_store.errors import (
    ArtefactTooLargeError,
    InvalidArtefactError,
    UnsafeArtefactError,
)
from adapters_store.limits import DEFAULT_LIMITS, Limits

ITEM_BYTES: Mapping[str, int] = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8,
}  # fmt: skip
PREFIX_BYTES = 8
MAX_DIMENSIONS = 8

_UNSAFE_MAGIC = (
    (b"PK\x03\x04", "a zip archive, as written by torch.save"),
    (b"GGUF", "a GGUF file"),
    (b"\x1f\x8b", "a gzip stream"),
)


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a file: ``begin`` and ``end`` are byte offsets from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def refuse_unsafe(prefix: bytes, what: str) -> None:
    """Raise UnsafeArtefactError where ``prefix`` (16 bytes or more) begins a known unsafe format.

    ``what`` names the file in the message.
    """
    for magic, format_name in _UNSAFE_MAGIC:
        if prefix.startswith(magic):
            raise UnsafeArtefactError(f"{what} is {format_name}; expected safetensors")
    is_protocol = len(prefix) >= 2 and prefix[0] == 0x80 and 2 <= prefix[1] <= 5
    if is_protocol and prefix[2:8] != bytes(6):
        raise UnsafeArtefactError(f"{what} is a Python pickle; expected safetensors")


def header_bytes(prefix: bytes, total_bytes: int, limits: Limits, what: str) -> int:
    """The length of the JSON header from a file's first bytes, checked against size and limit."""
    if len(prefix) < PREFIX_BYTES:
        raise InvalidArtefactError(f"{what} has {total_bytes} bytes; too short for safetensors")
    refuse_unsafe(prefix, what)
    length = int.from_bytes(prefix[:PREFIX_BYTES], "little")
    if length > limits.max_header_bytes:
        raise ArtefactTooLargeError(
            f"{what} announces a header of {length} bytes; the limit is {limits.max_header_bytes}"
        )
    if length > total_bytes - PREFIX_BYTES:
        raise InvalidArtefactError(
            f"{what} announces a header of {length} bytes that runs past the end: "
            f"{total_bytes - PREFIX_BYTES} bytes follow"
        )
    return length


def parse_header(
    header: bytes, total_bytes: int, *, limits: Limits = DEFAULT_LIMITS, what: str = "data"
) -> tuple[StoredTensor, ...]:
    """The tensors that a JSON header describes, in the order of their bytes.

    ``total_bytes`` is the whole file's size. Raises InvalidArtefactError for a malformed header,
    unknown dtypes, sizes that disagree with shapes, gaps, overlaps and truncated or trailing data.
    """
    document = strict_json(header, f"the header of {what}")
    if not isinstance(document, dict):
        raise InvalidArtefactError(f"the header of {what} is not a JSON object")
    metadata = document.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise InvalidArtefactError(f"__metadata__ in the header of {what} is not text by text")
    if len(document) > limits.max_tensors:
        raise ArtefactTooLargeError(
            f"{what} holds {len(document)} tensors; the limit is {limits.max_tensors}"
        )
    start = PREFIX_BYTES + len(header)
    tensors = [_entry(name, entry, start, what) for name, entry in document.items()]
    tensors.sort(key=lambda tensor: (tensor.begin, tensor.end))
    position = start
    for tensor in tensors:
        if tensor.begin != position:
            relation = "overlaps the tensor before it" if tensor.begin < position else "has a gap"
            raise InvalidArtefactError(
                f"tensor {tensor.name!r} of {what} {relation}: begins at byte "
                f"{tensor.begin - start}, expected {position - start}"
            )
        position = tensor.end
    if position != total_bytes:
        state = "truncated" if position > total_bytes else "followed by unexpected bytes"
        raise InvalidArtefactError(
            f"{what} is {state}: the header describes {position} bytes, found {total_bytes}"
        )
    return tuple(tensors)


def read_header(
    data: bytes, *, limits: Limits = DEFAULT_LIMITS, what: str = "data"
) -> tuple[StoredTensor, ...]:
    """The tensors of a whole file in memory; raises as the two functions above do."""
    length = header_bytes(data[:16], len(data), limits, what)
    header = data[PREFIX_BYTES : PREFIX_BYTES + length]
    return parse_header(header, len(data), limits=limits, what=what)


def _entry(name: str, entry: Any, start: int, what: str) -> StoredTensor:
    where = f"tensor {name[:200]!r} of {what}"
    if not isinstance(entry, dict) or set(entry) != {"dtype", "shape", "data_offsets"}:
        raise InvalidArtefactError(f"{where} is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if dtype not in ITEM_BYTES:
        raise InvalidArtefactError(f"{where} has dtype {dtype!r}; known: {sorted(ITEM_BYTES)}")
    if not _are_counts(shape) or len(shape) > MAX_DIMENSIONS:
        raise InvalidArtefactError(f"{where} has shape {shape!r}; expected a list of whole numbers")
    if not _are_counts(offsets) or len(offsets) != 2:
        raise InvalidArtefactError(f"{where} has data_offsets {offsets!r}; expected [begin, end)")
    begin, end = offsets
    size = math.prod(shape) * ITEM_BYTES[dtype]
    if end - begin != size:
        raise InvalidArtefactError(
            f"{where} spans {end - begin} bytes; {dtype} of shape {shape} needs {size}"
        )
    return StoredTensor(name, dtype, tuple(shape), start + begin, start + end)


def _are_counts(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**53
        for value in values
    )
