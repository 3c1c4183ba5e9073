"""How an inspection is shown: one JSON text on the command line and over HTTP, lines for people."""

from __future__ import annotations

import json

from adapters_store.formats.inspection import Inspection, Reason


def inspection_json(inspection: Inspection) -> str:
    """Indented JSON with a newline at its end."""
    return json.dumps(inspection.as_json(), indent=2, ensure_ascii=False) + "\n"


def inspection_rows(inspection: Inspection) -> list[tuple[str, str]]:
    """Two columns: what is asked, and what was found."""
    primitives = [part.primitive for part in inspection.parts]
    counts = ", ".join(f"{primitives.count(one)} {one}" for one in sorted(set(primitives)))
    return [
        ("source", inspection.source),
        ("format", inspection.format or "unknown"),
        ("method", inspection.method or "unknown"),
        ("backbone", inspection.backbone),
        ("verdict", inspection.verdict),
        *([("parts", counts)] if counts else []),
        ("tensors", f"{inspection.num_tensors}, {inspection.data_bytes} bytes"),
        *(("reason", _line(reason)) for reason in inspection.reasons),
        *(("note", _line(note)) for note in inspection.notes),
    ]


def _line(reason: Reason) -> str:
    place = f" ({reason.where})" if reason.where else ""
    return f"{reason.code}: {reason.message}{place}"
