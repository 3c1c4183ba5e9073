"""Ways to break an adapter: each takes its files by name and changes them in place."""

from __future__ import annotations

import gzip
import io
import json
import pickle
import struct
import zipfile
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from safetensors.torch import load, save

from adapters_store.canonical import digest_of
from adapters_store.fingerprint import content_digest
from adapters_store.tensor_file import read_header

Files = dict[str, bytes]
Change = Callable[[Files], None]
Header = dict[str, Any]
Tensors = dict[str, torch.Tensor]

WEIGHTS = (
    "data.safetensors",
    "adapter_model.safetensors",
    "adapter.safetensors",
    "best_model.safetensors",
    "rte.safetensors",
)
DOCUMENTS = ("manifest.json", "adapter_config.json", "best_model.ckpt.json", "rte.meta.json")


def weights_of(files: Files) -> str:
    """The name of the file with the adapter's tensors."""
    return next(name for name in WEIGHTS if name in files)


def document_of(files: Files) -> str:
    """The name of the file that says what the adapter is."""
    return next(name for name in DOCUMENTS if name in files)


def every(*changes: Change) -> Change:
    """All of them, in order."""

    def apply(files: Files) -> None:
        for change in changes:
            change(files)

    return apply


def nothing(_: Files) -> None:
    """Leave the files alone: what is wrong is elsewhere."""


def bytes_of(change: Callable[[bytes], bytes], file: str | None = None) -> Change:
    """Change the bytes of the weights, or of a named file."""

    def apply(files: Files) -> None:
        name = file or weights_of(files)
        files[name] = change(files[name])

    return apply


def document_bytes(change: Callable[[bytes], bytes]) -> Change:
    """Change the bytes of the document."""

    def apply(files: Files) -> None:
        name = document_of(files)
        files[name] = change(files[name])

    return apply


def setting(path: str, value: Any, file: str | None = None) -> Change:
    """Set a key of the document, or of another file; a dot goes down, a number is an index."""

    def apply(files: Files) -> None:
        name = file or document_of(files)
        document = target = json.loads(files[name])
        *steps, last = [int(step) if step.isdigit() else step for step in path.split("/")]
        for step in steps:
            target = target[step]
        target[last] = value
        files[name] = json.dumps(document).encode()

    return apply


def without_setting(key: str, file: str | None = None) -> Change:
    """Remove a key of the document."""

    def apply(files: Files) -> None:
        name = file or document_of(files)
        document = json.loads(files[name])
        del document[key]
        files[name] = json.dumps(document).encode()

    return apply


def tensors(change: Callable[[Tensors], Any], file: str | None = None) -> Change:
    """Change the tensors of the weights, or of a named file, and write it anew."""

    def apply(files: Files) -> None:
        name = file or weights_of(files)
        found = load(files[name])
        change(found)
        files[name] = save(found)

    return apply


def first(change: Callable[[torch.Tensor], torch.Tensor], ending: str = "") -> Change:
    """Change the first tensor whose name ends so."""

    def apply(found: Tensors) -> None:
        name = next(name for name in sorted(found) if name.endswith(ending))
        found[name] = change(found[name]).contiguous()

    return tensors(apply)


def all_tensors(change: Callable[[torch.Tensor], torch.Tensor], ending: str = "") -> Change:
    """Change every tensor whose name ends so."""

    def apply(found: Tensors) -> None:
        for name in found:
            if name.endswith(ending):
                found[name] = change(found[name]).contiguous()

    return tensors(apply)


def without_tensor(ending: str) -> Change:
    """Remove the first tensor whose name ends so."""
    return tensors(lambda found: found.pop(next(n for n in sorted(found) if n.endswith(ending))))


def extra_tensor(name: str, *shape: int) -> Change:
    """Add a tensor of ones."""
    return tensors(lambda found: found.update({name: torch.ones(shape)}))


def renamed(old: str, new: str) -> Change:
    """Replace a part of every tensor's name."""

    def apply(found: Tensors) -> None:
        for name in list(found):
            found[name.replace(old, new)] = found.pop(name)

    return tensors(apply)


def header(change: Callable[[Header], Any]) -> Change:
    """Rewrite the weights' header and leave the tensors' bytes; text replaces it whole."""

    def apply(data: bytes) -> bytes:
        length = struct.unpack("<Q", data[:8])[0]
        document = json.loads(data[8 : 8 + length])
        made = change(document)
        text = made if isinstance(made, str | bytes) else json.dumps(document)
        body = text if isinstance(text, bytes) else text.encode()
        return struct.pack("<Q", len(body)) + body + data[8 + length :]

    return bytes_of(apply)


def entry(change: Callable[[Header], Any], position: int = 0) -> Change:
    """Change the header's description of one tensor, by its place in the file."""

    def apply(document: Header) -> None:
        names = [name for name in document if name != "__metadata__"]
        names.sort(key=lambda name: document[name]["data_offsets"])
        change(document[names[position]])

    return header(apply)


def shifted(amount: int) -> Callable[[Header], None]:
    """Move a tensor's bytes in the header's description."""

    def apply(described: Header) -> None:
        begin, end = described["data_offsets"]
        described["data_offsets"] = [begin + amount, end + amount]

    return apply


def twice(document: Header) -> str:
    """The header with one tensor described twice."""
    name = next(name for name in document if name != "__metadata__")
    return json.dumps(document)[:-1] + f", {json.dumps(name)}: {json.dumps(document[name])}" + "}"


def sealed(files: Files) -> None:
    """Make a manifest's list, size and digests agree with its data, so that the rest shows."""
    data = files["data.safetensors"]
    document = json.loads(files["manifest.json"])
    table = read_header(data)
    document["tensors"] = [
        {"name": one.name, "dtype": one.dtype, "shape": list(one.shape)} for one in table
    ]
    document["data"] |= {"digest": digest_of(data), "size_bytes": len(data)}
    document["content_digest"] = content_digest(data, table)
    files["manifest.json"] = json.dumps(document).encode()


def put(value: float, dtype: torch.dtype = torch.float32) -> Callable[..., torch.Tensor]:
    """The tensor with one value replaced, in a dtype."""

    def apply(tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.to(dtype).clone()
        changed.view(-1)[1] = value
        return changed

    return apply


def pickled(_: bytes) -> bytes:
    """A pickle that would run a command."""
    return b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R."


def torch_zip(_: bytes) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save({"x": torch.zeros(2)}, buffer)
    return buffer.getvalue()


@lru_cache
def _zip_bomb() -> bytes:
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("archive/data.pkl", "w") as member,
    ):
        for _ in range(512):
            member.write(bytes(1 << 20))
    return buffer.getvalue()


def zip_bomb(_: bytes) -> bytes:
    """A small archive that unfolds to 512 MiB."""
    return _zip_bomb()


@lru_cache
def _gzip_bomb() -> bytes:
    return gzip.compress(bytes(64 << 20))


def gzip_bomb(_: bytes) -> bytes:
    """A small stream that unfolds to 64 MiB."""
    return _gzip_bomb()


def old_pickle(_: bytes) -> bytes:
    """A pickle of a plain state dict."""
    return pickle.dumps({"x": [0.0, 1.0]}, protocol=2)


def deep(opening: str, depth: int = 100_000) -> bytes:
    """Brackets without end."""
    return (opening * depth).encode()
