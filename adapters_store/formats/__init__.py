"""Foreign formats: a verdict before anything is read, then an exact conversion or a refusal.

One file per format, found through a lazy table; a format plans, the importer executes.
"""

from __future__ import annotations

from adapters_store.backbone import BackboneRecord
from adapters_store.errors import (
    IncompatibleError,
    InvalidArtefactError,
    PatchbayError,
    UsageError,
)
from adapters_store.formats.inspection import ROUTED, ImportOptions, Inspection, Plan, Reason
from adapters_store.formats.protocol import Format
from adapters_store.formats.source import Source
from adapters_store.lazy import resolve
from adapters_store.limits import DEFAULT_LIMITS, Limits

FORMATS: dict[str, str] = {
    "patchbay": "adapters_store.formats.native:NativeFormat",
    "peft": "adapters_store.formats.peft.format:PeftFormat",
    "adapterhub": "adapters_store.formats.adapterhub.format:AdapterHubFormat",
    "mttl_mhr": "adapters_store.formats.mttl.format:ReleaseFormat",
    "mttl": "adapters_store.formats.mttl.format:MainFormat",
}

EXPORTERS: dict[str, str] = {
    "patchbay": "adapters_store.formats.native:export_native",
    "peft": "adapters_store.formats.peft.export:export_peft",
    "adapterhub": "adapters_store.formats.adapterhub.export:export_adapterhub",
}
"""By format: (artefact, backbone, folder, bank or None) to a folder that its library loads."""

_CODES = {
    "unsafe_artefact": "unsafe",
    "artefact_too_large": "too_large",
    "incompatible": "incompatible",
}


def detect(source: Source) -> Format | None:
    """The format that recognises a source, or None; raises UnsafeArtefactError for links."""
    for name in FORMATS:
        found: Format = resolve(FORMATS, name, "adapter format")()
        if found.recognises(source):
            return found
    return None


def make_plan(
    source: Source,
    backbone: BackboneRecord,
    options: ImportOptions | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Plan:
    """What an import onto ``backbone`` would build; what cannot be read is a rejection too."""
    name = ""
    try:
        found = detect(source)
        if found is None:
            files = ", ".join(list(source.sizes())[:5]) or "no files"
            reason = Reason(
                "unknown_format",
                f"expected one of {sorted(FORMATS)}; found {files}",
                source.location,
            )
            return _rejected(source, "", backbone, reason)
        name = found.name
        plan = found.plan(source, backbone, options or ImportOptions(), limits)
    except (InvalidArtefactError, IncompatibleError) as error:
        return _rejected(source, name, backbone, as_reason(error, source.location))
    is_asked = options is not None and options.poly_task is not None
    if is_asked and plan.inspection.method not in (ROUTED, ""):
        raise UsageError(
            f"poly_task is for Poly checkpoints; this is {plan.inspection.method}",
            param="poly_task",
        )
    return plan


def inspect(
    source: Source,
    backbone: BackboneRecord,
    options: ImportOptions | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> Inspection:
    """The verdict on a source; no tensor's data is read."""
    return make_plan(source, backbone, options, limits).inspection


def as_reason(error: PatchbayError, where: str = "") -> Reason:
    """A typed error as a reason of an inspection."""
    return Reason(_CODES.get(error.code, "unreadable"), error.message, where)


def _rejected(source: Source, name: str, backbone: BackboneRecord, reason: Reason) -> Plan:
    return Plan(Inspection(source.location, name, "", "reject", backbone.name, (reason,)))


__all__ = [
    "EXPORTERS",
    "FORMATS",
    "Format",
    "ImportOptions",
    "Inspection",
    "Plan",
    "Reason",
    "Source",
    "as_reason",
    "detect",
    "inspect",
    "make_plan",
]
