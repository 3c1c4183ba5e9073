"""A backbone's fingerprint: one digest over its configuration and every frozen tensor.

Two folders have the same fingerprint exactly when an adapter trained on one is valid, bit for bit,
on the other. Files are streamed; no torch is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from adapters_store.canonical import canonical_json
from adapters_store.errors import InvalidArtefactError, UnsafeArtefactError
from adapters_store.limits import DEFAULT_LIMITS, MIB
from adapters_store.tensor_file import (
    PREFIX_BYTES,
    StoredTensor,
    header_bytes,
    parse_header,
)

VOLATILE_CONFIG_KEYS = frozenset(
    {
        "_attn_implementation",
        "_commit_hash",
        "_name_or_path",
        "dtype",
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
_CHUNK_BYTES = MIB


def weight_files(folder: Path) -> list[Path]:
    """The backbone's ``*.safetensors`` in a folder, sorted; files named ``adapter*`` are not its.

    Raises UnsafeArtefactError where only pickled weights exist, InvalidArtefactError where none do.
    """
    found = sorted(p for p in folder.glob("*.safetensors") if not p.name.startswith("adapter"))
    if not found and any(folder.glob("*.bin")):
        raise UnsafeArtefactError(
            f"{folder} has pickled weights (*.bin) only; expected *.safetensors",
            hint="Load the model once and save it with save_pretrained to get safetensors.",
        )
    if not found:
        raise InvalidArtefactError(
            f"{folder} has no *.safetensors file",
            hint="Give a folder with config.json and the model's safetensors files.",
        )
    return found


def read_tensor_table(path: Path) -> tuple[StoredTensor, ...]:
    """The tensors of a safetensors file on disk, read from its header alone."""
    total_bytes = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(16)
        length = header_bytes(prefix, total_bytes, DEFAULT_LIMITS, path.name)
        file.seek(PREFIX_BYTES)
        return parse_header(file.read(length), total_bytes, what=path.name)


def fingerprint(config: Mapping[str, Any], files: Sequence[Path]) -> str:
    """``sha256:<hex>`` over the canonical configuration and all tensors, sorted by name.

    Keys that say how a model was loaded or saved are dropped from ``config``; how tensors are
    split over files makes no difference. Raises InvalidArtefactError for a tensor in two files.
    """
    kept = {key: value for key, value in config.items() if key not in VOLATILE_CONFIG_KEYS}
    digest = hashlib.sha256(canonical_json(kept) + b"\n")
    places: dict[str, tuple[StoredTensor, Path]] = {}
    for path in files:
        for tensor in read_tensor_table(path):
            if tensor.name in places:
                other = places[tensor.name][1].name
                raise InvalidArtefactError(
                    f"tensor {tensor.name!r} is in both {other} and {path.name}"
                )
            places[tensor.name] = (tensor, path)
    handles: dict[Path, BinaryIO] = {}
    try:
        for _, (tensor, path) in sorted(places.items()):
            digest.update(tensor_line(tensor))
            handle = handles.get(path)
            if handle is None:
                handle = handles[path] = path.open("rb")
            _update(digest, handle, tensor)
    finally:
        for handle in handles.values():
            handle.close()
    return "sha256:" + digest.hexdigest()


def tensor_line(tensor: StoredTensor) -> bytes:
    """The line that stands before a tensor's bytes in every digest over tensors."""
    return canonical_json([tensor.name, tensor.dtype, list(tensor.shape)]) + b"\n"


def content_digest(data: bytes, tensors: Sequence[StoredTensor]) -> str:
    """``sha256:<hex>`` over sorted (name, dtype, shape, bytes) of a blob's tensors."""
    digest = hashlib.sha256()
    view = memoryview(data)
    for tensor in sorted(tensors, key=lambda tensor: tensor.name):
        digest.update(tensor_line(tensor))
        digest.update(view[tensor.begin : tensor.end])
    return "sha256:" + digest.hexdigest()


def _update(digest: Any, file: BinaryIO, tensor: StoredTensor) -> None:
    file.seek(tensor.begin)
    left = tensor.end - tensor.begin
    while left:
        chunk = file.read(min(left, _CHUNK_BYTES))
        if not chunk:
            raise InvalidArtefactError(f"tensor {tensor.name!r} ends {left} bytes early")
        digest.update(chunk)
        left -= len(chunk)
