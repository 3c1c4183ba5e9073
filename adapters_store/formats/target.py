"""Which backbone an import is for."""

from __future__ import annotations

from collections.abc import Sequence

from adapters_store.backbone import BackboneRecord
from adapters_store.errors import InvalidArtefactError, NotFoundError, UsageError
from adapters_store.formats.native import read_manifest
from adapters_store.formats.source import Source
from adapters_store.manifest import MANIFEST_FILE


def choose_backbone(
    records: Sequence[BackboneRecord], name: str | None, source: Source
) -> BackboneRecord:
    """The record of that name; without one that of a native source's manifest, else the only one.

    Raises NotFoundError for an unknown name or fingerprint, UsageError where there is a choice.
    """
    known = ", ".join(record.name for record in records) or "none"
    wanted = name or _named_by(source)
    if wanted is not None:
        for record in records:
            if wanted in (record.name, record.fingerprint):
                return record
        raise NotFoundError(
            f"no backbone {wanted!r} is registered; registered: {known}",
            hint="Register it with `patchbay adapters backbones add FOLDER`, or serve it.",
            param="backbone",
        )
    if len(records) != 1:
        raise UsageError(f"say which backbone it is for; registered: {known}", param="backbone")
    return records[0]


def _named_by(source: Source) -> str | None:
    if MANIFEST_FILE not in source.sizes():
        return None
    try:
        return read_manifest(source).backbone
    except InvalidArtefactError:
        return None
