"""The table of refusals: each row breaks a sound artefact in one way and names the answer."""

# ruff: noqa: E501 (one case is one row)

from __future__ import annotations

import hashlib
import io
import json
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from safetensors.torch import save

from adapters_store.artefact import Artefact, load_tensors
from adapters_store.errors import (
    ArtefactTooLargeError,
    IncompatibleError,
    InvalidArtefactError,
    PatchbayError,
    UnsafeArtefactError,
)
from adapters_store.fingerprint import content_digest
from adapters_store.manifest import parse_manifest
from adapters_store.tensor_file import read_header

SITE = "encoder.0.self.q"
A, B = f"{SITE}/low_rank/a", f"{SITE}/low_rank/b"
Document = dict[str, Any]
Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Case:
    """One mutation of a sound artefact's tensors, document or bytes, and the expected refusal."""

    name: str
    error: type[PatchbayError]
    words: str
    tensors: Callable[[Tensors], None] | None = None
    document: Callable[[Document], None] | None = None
    data: Callable[[bytes], bytes] | None = None
    base: str = "adapter"
    is_data_resealed: bool = True


def seal(document: Document, data: bytes, *, keep_content: bool = False) -> None:
    """Make digests and sizes agree with the bytes, so that only the mutation is wrong."""
    document["data"]["digest"] = "sha256:" + hashlib.sha256(data).hexdigest()
    document["data"]["size_bytes"] = len(data)
    if not keep_content:
        document["content_digest"] = content_digest(data, read_header(data))


def relist(document: Document, data: bytes) -> None:
    document["tensors"] = [
        {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}
        for tensor in read_header(data)
    ]


def change(key: str, value: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[Tensors], None]:
    def apply(tensors: Tensors) -> None:
        tensors[key] = value(tensors[key]).contiguous()

    return apply


def put(value: float, dtype: torch.dtype = torch.float32) -> Callable[[torch.Tensor], torch.Tensor]:
    def apply(tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.to(dtype).clone()
        changed.view(-1)[3] = value
        return changed

    return apply


def at(path: str, value: Any) -> Callable[[Document], None]:
    """Set a dotted path in the manifest; a number is an index."""

    def apply(document: Document) -> None:
        target: Any = document
        *steps, last = [int(step) if step.isdigit() else step for step in path.split("/")]
        for step in steps:
            target = target[step]
        target[last] = value

    return apply


def with_header(change_header: Callable[[Document], Any]) -> Callable[[bytes], bytes]:
    """Rewrite the safetensors header, leaving the tensors' bytes alone."""

    def apply(data: bytes) -> bytes:
        length = struct.unpack("<Q", data[:8])[0]
        header = json.loads(data[8 : 8 + length])
        text = change_header(header)
        body = (text if isinstance(text, str) else json.dumps(header)).encode()
        return struct.pack("<Q", len(body)) + body + data[8 + length :]

    return apply


def shift(key: str, amount: int) -> Callable[[Document], None]:
    def apply(header: Document) -> None:
        begin, end = header[key]["data_offsets"]
        header[key]["data_offsets"] = [begin + amount, end + amount]

    return apply


def repeat_key(header: Document) -> str:
    text = json.dumps(header)
    return text[:-1] + f', "{A}": ' + json.dumps(header[A]) + "}"


def torch_zip(_: bytes) -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(2)}, buffer)
    return buffer.getvalue()


def duplicate_part(document: Document) -> None:
    document["parts"].append(dict(document["parts"][0]))


def swap_sites(document: Document) -> None:
    sites = document["parts"][0]["sites"]
    sites[0], sites[1] = sites[1], sites[0]


INVALID, UNSAFE, TOO_LARGE = InvalidArtefactError, UnsafeArtefactError, ArtefactTooLargeError
OTHER = IncompatibleError
HUGE = struct.pack("<Q", 1 << 40)
CASES = [
    Case("wrong shape", INVALID, "expected [16, 2]", tensors=change(A, lambda t: t[:-1])),
    Case("transposed factor", INVALID, "expected [2, 8]", tensors=change(B, lambda t: t.T)),
    Case("nan", INVALID, "NaN or infinity at index [1, 1]", tensors=change(A, put(torch.nan))),
    Case("infinity", INVALID, "NaN or infinity", tensors=change(B, put(-torch.inf))),
    Case(
        "bf16 nan",
        INVALID,
        "(BF16) holds NaN",
        tensors=change(A, put(torch.nan, torch.bfloat16)),
    ),
    Case(
        "f16 infinity",
        INVALID,
        "(F16) holds NaN",
        tensors=change(A, put(torch.inf, torch.float16)),
    ),
    Case("missing tensor", INVALID, "missing tensor", tensors=lambda t: drop(t, B)),
    Case(
        "extra tensor",
        INVALID,
        "extra tensor 'x'",
        tensors=lambda t: t.update(x=torch.zeros(2)),
    ),
    Case("float64", INVALID, "tensors", tensors=change(A, lambda t: t.double())),
    Case("int64", INVALID, "tensors", tensors=change(A, lambda t: t.long())),
    Case("dtype not as listed", INVALID, "the manifest says F16", document=at("tensors/0/dtype", "F16")),
    Case("shape not as listed", INVALID, "the manifest says", document=at("tensors/0/shape/0", 17)),
    Case("other backbone", OTHER, "another backbone", document=at("backbone", "sha256:" + "0" * 64)),
    Case("other family", OTHER, "family 'bert'", document=at("family", "bert")),
    Case("unknown site", OTHER, "'encoder.9.self.q' does not exist", document=at("parts/0/site", "encoder.9.self.q")),
    Case("duplicate part", INVALID, "duplicate part", document=duplicate_part),
    Case("empty parts", INVALID, "no parts", document=at("parts", [])),
    Case("unknown key", INVALID, "surprise", document=at("surprise", 1)),
    Case("unknown part key", INVALID, "alpha", document=at("parts/0/alpha", 1)),
    Case("unknown primitive", INVALID, "unknown primitive 'low_rnk'", document=at("parts/0/primitive", "low_rnk")),
    Case("other format", INVALID, "patchbay-artefact/1", document=at("format", "patchbay-artefact/9")),
    Case("rank zero", INVALID, "greater than or equal to 1", document=at("parts/0/rank", 0)),
    Case("rank as text", INVALID, "valid integer", document=at("parts/0/rank", "2")),
    Case("rank above the matrix", INVALID, "above min(in, out) = 8", document=at("parts/0/rank", 9)),
    Case("scale not finite", INVALID, "Infinity", document=at("parts/0/scale", 1e400)),
    Case("primitive of another kind", INVALID, "not allowed in kind 'bank'", document=lambda d: d.update(kind="bank", signature=None)),
    Case("no signature", INVALID, "signature", document=at("signature", None)),
    Case("template without input", INVALID, "{input}", document=at("signature/prompt_template", "x")),
    Case("bank on an adapter", INVALID, "bank", document=at("bank", "sha256:" + "0" * 64)),
    Case("wrong data digest", INVALID, "data digest mismatch", document=at("data/digest", "sha256:" + "1" * 64)),
    Case("wrong size", INVALID, "the manifest says 7", document=at("data/size_bytes", 7)),
    Case("wrong content digest", INVALID, "content digest mismatch", document=at("content_digest", "sha256:" + "2" * 64)),
    Case("pickle", UNSAFE, "pickle", data=lambda _: pickle.dumps({"a": 1})),
    Case("torch zip", UNSAFE, "zip", data=torch_zip),
    Case("gguf", UNSAFE, "GGUF", data=lambda _: b"GGUF" + bytes(64)),
    Case("gzip", UNSAFE, "gzip", data=lambda _: b"\x1f\x8b\x08" + bytes(64)),
    Case("empty data", INVALID, "too short", data=lambda _: b""),
    Case("oversized header", TOO_LARGE, "announces a header", data=lambda d: HUGE + d[8:]),
    Case("header past the end", INVALID, "past the end", data=lambda d: struct.pack("<Q", len(d)) + d[8:]),
    Case("header not json", INVALID, "not JSON", data=with_header(lambda _: "{nope")),
    Case("header a list", INVALID, "not a JSON object", data=with_header(lambda _: "[]")),
    Case("header deeply nested", INVALID, "not JSON", data=with_header(lambda _: "[" * 100_000)),
    Case("repeated tensor", INVALID, "repeats the key", data=with_header(repeat_key)),
    Case("overlap", INVALID, "overlaps", data=with_header(shift(B, -4))),
    Case("gap", INVALID, "has a gap", data=with_header(shift(A, 4))),
    Case("negative offset", INVALID, "data_offsets", data=with_header(shift(A, -10_000))),
    Case("unknown dtype", INVALID, "dtype 'F4'", data=with_header(lambda h: h[A].update(dtype="F4"))),
    Case("truncated data", INVALID, "truncated", data=lambda d: d[:-5]),
    Case("trailing bytes", INVALID, "unexpected bytes", data=lambda d: d + b"more"),
    Case("flipped byte", INVALID, "data digest mismatch", data=lambda d: d[:-1] + bytes([d[-1] ^ 1]), is_data_resealed=False),
    Case("unknown bank", OTHER, "not in the store", document=at("bank", "sha256:" + "3" * 64), base="routing"),
    Case("sites in another order", OTHER, "order", document=swap_sites, base="routing"),
    Case("other number of heads", OTHER, "(heads, skills)", document=at("parts/0/num_heads", 4), base="routing"),
    Case("routing shape", INVALID, "expected [3, 2, 3]", tensors=change("routing/weights", lambda t: t[:, :1]), base="routing"),
    Case("negative weight", INVALID, "a negative value", tensors=change("routing/weights", put(-0.1)), base="routing"),
    Case("labels and head disagree", INVALID, "3 labels; the head has 2", document=at("signature/labels", ["a", "b", "c"]), base="bert"),
    Case("repeated labels", INVALID, "differ", document=at("signature/labels", ["a", "a"]), base="bert"),
    Case("text task on an encoder", OTHER, "needs a decoder", document=lambda d: headless(d), tensors=lambda t: drop(t, "head/"), base="bert"),
    Case("heads do not divide", INVALID, "does not divide", document=at("parts/0/num_heads", 5), base="bank"),
]  # fmt: skip


def headless(document: Document) -> None:
    document["parts"] = [p for p in document["parts"] if p["primitive"] != "head"]
    document["signature"] |= {"task": "text2text", "labels": []}


def drop(tensors: Tensors, prefix: str) -> None:
    for key in [key for key in tensors if key.startswith(prefix)]:
        del tensors[key]


def mutate(case: Case, base: Artefact) -> Artefact:
    document: Document = base.manifest.model_dump(mode="json")
    data = base.data
    if case.tensors is not None:
        tensors = load_tensors(base)
        case.tensors(tensors)
        data = save(tensors)
        relist(document, data)
        seal(document, data)
    if case.data is not None:
        data = case.data(data)
        if case.is_data_resealed:
            seal(document, data, keep_content=True)
    if case.document is not None:
        case.document(document)
    text = json.dumps(document).encode()
    return Artefact(parse_manifest(text), data)
