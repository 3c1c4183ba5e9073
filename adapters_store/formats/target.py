"""Which backbone an import is for."""

from __future__ import annotations

from collections.abc import Sequence

from adapters_store.backbone import BackboneRecord
from adapters_store.errors import IncompatibleError, NotFoundError, UsageError
from adapters_store.formats.native import is_native, read_manifest
from adapters_store.formats.source import Source

_NAME_HINT = "Give `--backbone NAME`, or the field `backbone` over HTTP."
_REGISTER_HINT = "Register it with `patchbay adapters backbones add`, or name a folder: ./DIR."


def choose_backbone(
    records: Sequence[BackboneRecord], name: str | None, source: Source
) -> BackboneRecord:
    """The record of that name; without one that of a native source's manifest, else the only one.

    Raises NotFoundError for an unknown name, IncompatibleError for a manifest's unknown backbone,
    UsageError where there is a choice.
    """
    known = ", ".join(record.name for record in records) or "none"
    by_fingerprint = {record.fingerprint: record for record in records}
    if name is not None:
        for record in records:
            if name in (record.name, record.fingerprint):
                return record
        raise NotFoundError(
            f"no backbone {name[:100]!r} is here; known: {known}",
            hint=_REGISTER_HINT,
            param="backbone",
        )
    if is_native(source):
        wanted = read_manifest(source).backbone
        if wanted not in by_fingerprint:
            raise IncompatibleError(
                f"the artefact is for another backbone: {wanted} is not here; known: {known}"
            )
        return by_fingerprint[wanted]
    if len(records) != 1:
        raise UsageError(
            f"say which backbone it is for; known: {known}",
            hint=_NAME_HINT if records else _REGISTER_HINT,
            param="backbone",
        )
    return records[0]
