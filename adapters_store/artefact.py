"""Artefacts in memory and in folders: a manifest and one blob of tensors."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters_store.backbone import Backbone, BackboneRecord
from adapters_store.canonical import digest_of
from adapters_store.errors import (
    ArtefactTooLargeError,
    InvalidArtefactError,
    NotFoundError,
    UnsafeArtefactError,
)
from adapters_store.fingerprint import content_digest
from adapters_store.limits import DEFAULT_LIMITS, Limits
from adapters_store.manifest import (
    DATA_FILE,
    DATA_MEDIA_TYPE,
    FORMAT,
    MANIFEST_FILE,
    Kind,
    Manifest,
    Part,
    TaskSignature,
    make_manifest,
    parse_manifest,
)
from adapters_store.tensor_file import read_header, refuse_unsafe
from adapters_store.validation import validate_alone

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class Artefact:
    """A manifest with the bytes of its data blob (safetensors). Immutable by construction."""

    manifest: Manifest
    data: bytes

    @property
    def digest(self) -> str:
        """The artefact digest: its identity."""
        return self.manifest.digest


def build_artefact(
    *,
    kind: Kind,
    backbone: Backbone | BackboneRecord,
    parts: Sequence[Part],
    tensors: Mapping[str, torch.Tensor],
    signature: TaskSignature | None = None,
    bank: str | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Artefact:
    """Make an artefact from tensors (float32, float16 or bfloat16, any device).

    ``bank`` is the artefact digest of a routing's bank. The same input gives the same bytes.
    Everything but the bank is validated here: raises InvalidArtefactError or IncompatibleError as
    :func:`~adapters_store.validation.validate_alone` does.
    """
    from safetensors.torch import save

    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    data = save(plain)
    table = read_header(data)
    record = backbone.record if isinstance(backbone, Backbone) else backbone
    document = {
        "format": FORMAT,
        "kind": kind,
        "family": record.family,
        "backbone": record.fingerprint,
        "bank": bank,
        "parts": tuple(parts),
        "tensors": [
            {"name": tensor.name, "dtype": tensor.dtype, "shape": list(tensor.shape)}
            for tensor in sorted(table, key=lambda tensor: tensor.name)
        ],
        "data": {
            "media_type": DATA_MEDIA_TYPE,
            "digest": digest_of(data),
            "size_bytes": len(data),
        },
        "content_digest": content_digest(data, table),
        "signature": signature,
        "provenance": dict(provenance or {}),
    }
    artefact = Artefact(make_manifest(document), data)
    validate_alone(artefact.manifest, data, record)
    return artefact


def write_artefact(artefact: Artefact, folder: str | Path) -> Path:
    """Write ``manifest.json`` and ``data.safetensors``; returns the manifest's path."""
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    (target / DATA_FILE).write_bytes(artefact.data)
    path = target / MANIFEST_FILE
    path.write_bytes(artefact.manifest.canonical)
    return path


def read_artefact(path: str | Path, *, limits: Limits = DEFAULT_LIMITS) -> Artefact:
    """Read an artefact from its folder or its manifest's path. Sizes are checked before reading.

    The bytes are not validated against a backbone here; publishing does that. Raises NotFoundError
    for missing files, UnsafeArtefactError for links and special files, InvalidArtefactError for a
    manifest outside the format.
    """
    given = Path(path)
    is_folder = given.is_dir() or not os.path.lexists(given)
    folder, manifest_path = (given, given / MANIFEST_FILE) if is_folder else (given.parent, given)
    manifest_bytes = _read_plain_file(manifest_path, limits.max_manifest_bytes)
    manifest = parse_manifest(manifest_bytes, limits=limits)
    return Artefact(manifest, _read_plain_file(folder / DATA_FILE, limits.max_data_bytes))


def load_tensors(source: Artefact | bytes) -> dict[str, torch.Tensor]:
    """The tensors of an artefact or of a safetensors blob, on the CPU, in their stored dtypes."""
    from safetensors.torch import load

    data = source.data if isinstance(source, Artefact) else source
    refuse_unsafe(data[:16], "data")
    tensors: dict[str, torch.Tensor] = load(data)
    return tensors


def _read_plain_file(path: Path, max_bytes: int) -> bytes:
    if path.is_symlink():
        raise UnsafeArtefactError(
            f"{path} is a symbolic link; expected a plain file",
            hint="Copy the file itself into the folder.",
        )
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError as error:
        raise NotFoundError(
            f"no artefact at {path.parent}: {path.name} is missing",
            hint=f"An artefact folder holds {MANIFEST_FILE} and {DATA_FILE}.",
        ) from error
    except OSError as error:
        raise InvalidArtefactError(f"cannot read {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise UnsafeArtefactError(f"{path} is not a plain file")
        if status.st_size > max_bytes:
            raise ArtefactTooLargeError(
                f"{path} has {status.st_size} bytes; the limit is {max_bytes}"
            )
        return file.read()
