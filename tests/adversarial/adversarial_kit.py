"""Putting a bad adapter somewhere, and what must be as before when it was refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mutations import Files, document_of, weights_of
from store_kit import contents

from adapters_store.errors import PatchbayError
from adapters_store.formats import ImportOptions, Reason, as_reason, make_plan
from adapters_store.formats.importing import import_from
from adapters_store.formats.native import is_native
from adapters_store.formats.source import Source
from adapters_store.store import Store


def write(files: Files, folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def file_named(role: str, files: Files) -> str:
    """``weights``, ``document`` or one more file."""
    named = {"weights": weights_of, "document": document_of}
    return named[role](files) if role in named else "another.json"


def state(store: Store, folder: Path) -> Any:
    """Everything that a refusal must leave alone."""
    return contents(folder), store.generation(), store.audit.head()


def take_in(
    store: Store, source: Source, fingerprint: str, options: ImportOptions
) -> tuple[set[str], str]:
    """Inspect, import and publish as the command does; the codes and the message of the refusal.

    The codes are those of the inspection where it rejects, else that of the error.
    """
    record = next(one for one in store.backbones() if one.fingerprint == fingerprint)
    reasons: tuple[Reason, ...] = ()
    refusal: PatchbayError | None = None
    try:
        if not is_native(source):
            inspection = make_plan(source, record, options).inspection
            reasons = inspection.reasons
            assert (inspection.verdict == "reject") == bool(reasons)
            assert not reasons or not inspection.parts
        items = [(f"bad/x{suffix}", one) for suffix, one in import_from(source, record, options)]
        store.publish_many(items)
    except PatchbayError as error:
        refusal = error
    assert refusal is not None, "it was taken"
    assert refusal.hint
    if not reasons:
        return {refusal.code, as_reason(refusal).code}, refusal.message
    codes = {reason.code for reason in reasons}
    assert refusal.code == "rejected_artefact"
    assert all(code in refusal.message for code in codes)
    return codes, "; ".join(reason.message for reason in reasons)
