"""Writing an artefact as a PEFT folder that PEFT loads and that computes the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from adapters_store.artefact import Artefact
from adapters_store.backbone import Backbone, BackboneRecord
from adapters_store.errors import ConflictError, RejectedArtefactError, UsageError
from adapters_store.formats.peft.format import CONFIG_FILE, WEIGHTS_FILE
from adapters_store.formats.peft.outgoing import Outgoing
from adapters_store.lazy import resolve
from adapters_store.validation import validate

PEFT_EXPORTS: dict[str, str] = {
    "low_rank": "adapters_store.formats.peft.export_lora:fill",
    "scale": "adapters_store.formats.peft.export_vectors:fill_scales",
    "override": "adapters_store.formats.peft.export_vectors:fill_norms",
    "prompt": "adapters_store.formats.peft.export_rows:fill_prompt",
    "prefix": "adapters_store.formats.peft.export_rows:fill_prefix",
    "routing": "adapters_store.formats.peft.export_poly:fill",
}
"""By the primitive that decides the method; a head, and overrides beside it, travel along."""


def export_peft(
    artefact: Artefact,
    backbone: Backbone | BackboneRecord,
    folder: str | Path,
    bank: Artefact | None = None,
) -> Path:
    """Write ``adapter_config.json``, ``adapter_model.safetensors`` and ``README.md``.

    ``bank`` is a routing's. Returns the folder. Raises UsageError for a bank alone, ConflictError
    for a folder with files, RejectedArtefactError for parts that PEFT cannot express, and what
    :func:`~adapters_store.validation.validate` raises.
    """
    record = backbone.record if isinstance(backbone, Backbone) else backbone
    if artefact.manifest.kind == "bank":
        raise UsageError("a bank is no task: export a routing, with the bank beside it")
    validate(artefact, record, None if bank is None else bank.manifest)
    fill: Callable[[Outgoing], None] = resolve(PEFT_EXPORTS, _method(artefact), "PEFT export")
    outgoing = Outgoing(artefact, record, bank)
    fill(outgoing)
    return _write(outgoing, Path(folder))


def _method(artefact: Artefact) -> str:
    """The one primitive that decides the method; raises RejectedArtefactError where several do."""
    found = list(dict.fromkeys(part.primitive for part in artefact.manifest.parts))
    deciding = [name for name in found if name not in ("head", "override")]
    if not deciding and "override" in found:
        deciding = ["override"]
    if len(deciding) != 1 or deciding[0] not in PEFT_EXPORTS:
        raise RejectedArtefactError(
            f"PEFT has no method for parts of {', '.join(sorted(found))} together; one of "
            f"{sorted(PEFT_EXPORTS)} with a head and overrides can be written"
        )
    return deciding[0]


def _write(outgoing: Outgoing, folder: Path) -> Path:
    from safetensors.torch import save

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConflictError(
            f"{folder} is not an empty folder", hint="Give a new folder to export to."
        )
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.contiguous().clone() for name, tensor in outgoing.tensors.items()}
    (folder / WEIGHTS_FILE).write_bytes(save(tensors, metadata={"format": "pt"}))
    text = json.dumps(outgoing.options, indent=2, sort_keys=True)
    (folder / CONFIG_FILE).write_text(text + "\n", encoding="utf-8")
    (folder / "README.md").write_text(_card(outgoing), encoding="utf-8")
    return folder


def _card(outgoing: Outgoing) -> str:
    """A model card: what PEFT's own files have no place for."""
    manifest = outgoing.artefact.manifest
    lines = ["---", f"base_model: {json.dumps(outgoing.backbone.name)}", "library_name: peft"]
    lines += ["---", "", f"Exported from artefact `{manifest.digest}`."]
    lines += [f"Backbone: `{outgoing.backbone.name}`, fingerprint `{manifest.backbone}`.", ""]
    if manifest.signature is not None:
        signature = manifest.signature.model_dump(mode="json", exclude_defaults=True)
        lines += ["```json", json.dumps(signature, indent=2, sort_keys=True), "```", ""]
    return "\n".join(lines)
