"""Multipart bodies of ``/v1/adapters``: named files, named texts, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from starlette.datastructures import FormData, UploadFile

from adapters_store.canonical import strict_json
from adapters_store.errors import ArtefactTooLargeError, InvalidArtefactError, UsageError
from adapters_store.formats.sources.memory import MemorySource
from adapters_store.limits import DEFAULT_LIMITS, MIB
from adapters_store.manifest import DATA_FILE, MANIFEST_FILE
from serving.api.schemas import ImportFields

FILE_BYTES: Mapping[str, int] = {
    "manifest": DEFAULT_LIMITS.max_manifest_bytes,
    "config": MIB,
    "head_config": MIB,
    "data": DEFAULT_LIMITS.max_data_bytes,
    "head": DEFAULT_LIMITS.max_data_bytes,
}
LISTS = frozenset({"aliases", "labels"})
TEXTS = frozenset({"name", "signature", *ImportFields.model_fields}) - LISTS
MAX_FIELDS = 1000
_MAX_TEXT_BYTES = 100_000

# The names of uploaded files as each tool writes them: PEFT, and the adapters library.
_PEFT_FILES = {"config": "adapter_config.json", "data": "adapter_model.safetensors"}
_HUB_FILES = {
    "config": "adapter_config.json",
    "data": "adapter.safetensors",
    "head_config": "head_config.json",
    "head": "model_head.safetensors",
}


@dataclass(frozen=True, slots=True)
class Upload:
    """One multipart body. ``fields`` holds texts by name and lists of texts."""

    files: Mapping[str, bytes]
    fields: Mapping[str, Any]

    @property
    def source(self) -> MemorySource:
        """The files under the names that their format gives them; raises UsageError."""
        if "data" not in self.files or ("manifest" in self.files) == ("config" in self.files):
            raise UsageError(
                f"found the files {sorted(self.files)}; expected data with either manifest "
                "(an artefact of this product) or config (an adapter of another tool)",
                param="manifest" if "data" in self.files else "data",
            )
        names = {"manifest": MANIFEST_FILE, "data": DATA_FILE}
        if "config" in self.files:
            names = _PEFT_FILES if _is_peft(self.files["config"]) else _HUB_FILES
        unknown = sorted(set(self.files) - set(names))
        if unknown:
            raise UsageError(f"files {unknown} do not belong to this kind of adapter")
        return MemorySource({names[field]: data for field, data in self.files.items()})


async def read_upload(request: Request) -> Upload:
    """Read a form; raises UsageError for unknown and repeated fields, 413 for large ones."""
    async with request.form(max_files=len(FILE_BYTES), max_fields=MAX_FIELDS) as form:
        known = {*FILE_BYTES, *TEXTS, *LISTS}
        unknown = sorted(set(form) - known)
        if unknown:
            raise UsageError(f"unknown form fields {unknown}; known: {sorted(known)}")
        files = {
            field: await _file(form, field, limit)
            for field, limit in FILE_BYTES.items()
            if field in form
        }
        fields: dict[str, Any] = {field: _text(form, field) for field in TEXTS if field in form}
        for field in LISTS & set(form):
            fields[field] = [_checked(value, field) for value in form.getlist(field)]
    return Upload(files, fields)


async def _file(form: FormData, field: str, max_bytes: int) -> bytes:
    value = _only(form, field)
    data = await value.read(max_bytes + 1) if isinstance(value, UploadFile) else value.encode()
    if len(data) > max_bytes:
        raise ArtefactTooLargeError(f"form field {field!r} is over {max_bytes} bytes", param=field)
    return data


def _text(form: FormData, field: str) -> str:
    return _checked(_only(form, field), field)


def _only(form: FormData, field: str) -> UploadFile | str:
    values = form.getlist(field)
    if len(values) != 1:
        raise UsageError(f"expected one form field {field!r}, found {len(values)}", param=field)
    return values[0]


def _checked(value: UploadFile | str, field: str) -> str:
    if isinstance(value, str) and len(value) <= _MAX_TEXT_BYTES:
        return value
    raise UsageError(f"form field {field!r} is a file or too long; expected text", param=field)


def _is_peft(config: bytes) -> bool:
    try:
        document = strict_json(config, "adapter_config.json")
    except InvalidArtefactError:
        return True
    return not isinstance(document, dict) or "peft_type" in document or "config" not in document
