"""Directories of ``adapters`` (AdapterHub), up to release 1.3.0."""

from __future__ import annotations

from adapters_store.backbone import BackboneRecord
from adapters_store.errors import InvalidArtefactError, UnsafeArtefactError
from adapters_store.formats.adapterhub.document import CONFIG_FILE, parse, read_json
from adapters_store.formats.adapterhub.draft import Draft, Held
from adapters_store.formats.adapterhub.head import (
    HEAD_CONFIG_FILE,
    HEAD_PICKLE_FILE,
    HEAD_WEIGHTS_FILE,
    is_language_model,
    plan_head,
)
from adapters_store.formats.adapterhub.keys import by_key
from adapters_store.formats.adapterhub.methods import plan_members
from adapters_store.formats.inspection import (
    ImportOptions,
    Inspection,
    Plan,
    PlannedArtefact,
    Reason,
)
from adapters_store.formats.source import Source, read_tensor_table
from adapters_store.limits import DEFAULT_LIMITS, Limits

WEIGHTS_FILE = "adapter.safetensors"
PICKLE_FILE = "pytorch_adapter.bin"
STRANGERS: dict[str, str] = {
    "adapter_fusion_config.json": "a fusion attends over several adapters",
    "adapter_setup.json": "a setup composes several adapters; import each one's folder",
    "adapter_interface.json": "the adapter was put into a model by hooks that the folder describes",
    "embedding.pt": "the adapter has an embedding of its own",
}
"""Files whose presence means more than one adapter's parts."""
COMPOSITIONS = ("adapter_fusion_config.json", "adapter_setup.json")


class AdapterHubFormat:
    """``adapter_config.json`` without ``peft_type``, and ``adapter.safetensors``."""

    name = "adapterhub"

    def recognises(self, source: Source) -> bool:
        """True for a configuration with ``config`` and ``model_type``, and for compositions."""
        files = source.sizes()
        if CONFIG_FILE not in files:
            return any(name in files for name in COMPOSITIONS)
        try:
            raw = read_json(source, CONFIG_FILE, DEFAULT_LIMITS)
        except InvalidArtefactError:
            return WEIGHTS_FILE in files or PICKLE_FILE in files
        return "peft_type" not in raw and {"config", "model_type"} <= set(raw)

    def plan(
        self, source: Source, backbone: BackboneRecord, options: ImportOptions, limits: Limits
    ) -> Plan:
        """See :class:`~adapters_store.formats.protocol.Format`."""
        strangers = [name for name in STRANGERS if name in source.sizes()]
        if strangers:
            reasons = [Reason("unsupported_method", STRANGERS[name], name) for name in strangers]
            return Plan(
                Inspection(source.location, self.name, "", "reject", backbone.name, tuple(reasons))
            )
        document = parse(read_json(source, CONFIG_FILE, limits))
        tensors = self._tensors(source, WEIGHTS_FILE, PICKLE_FILE, backbone, limits)
        draft = Draft(backbone.shapes, tensors)
        methods = plan_members(document, backbone, draft)
        self._plan_head(source, backbone, limits, draft)
        draft.finish()
        is_rejected = bool(draft.reasons)
        inspection = Inspection(
            source=source.location,
            format=self.name,
            method="+".join(methods),
            verdict="reject" if is_rejected else "convert",
            backbone=backbone.name,
            reasons=tuple(draft.reasons),
            notes=tuple(draft.notes),
            parts=() if is_rejected else tuple(draft.parts),
            num_tensors=len(draft.tensors),
            data_bytes=sum(held.tensor.end - held.tensor.begin for held in draft.tensors.values()),
        )
        made = PlannedArtefact(
            "adapter", tuple(draft.parts), tuple(draft.pieces), labels=draft.labels
        )
        return Plan(inspection, () if is_rejected else (made,))

    def _plan_head(
        self, source: Source, backbone: BackboneRecord, limits: Limits, draft: Draft
    ) -> None:
        files = source.sizes()
        if HEAD_CONFIG_FILE not in files:
            for name in (HEAD_WEIGHTS_FILE, HEAD_PICKLE_FILE):
                if name in files:
                    draft.reject("unreadable", f"a head without {HEAD_CONFIG_FILE}", name)
            return
        raw = read_json(source, HEAD_CONFIG_FILE, limits)
        if is_language_model(raw):
            message = "a language model's head lies beside the adapter; the backbone's own writes"
            draft.note("base_weights", message, HEAD_CONFIG_FILE)
            return
        tensors = self._tensors(source, HEAD_WEIGHTS_FILE, HEAD_PICKLE_FILE, backbone, limits)
        draft.tensors = {**draft.tensors, **tensors}
        plan_head(raw, str(backbone.config.get("model_type")), draft)

    @staticmethod
    def _tensors(
        source: Source, file: str, pickled: str, backbone: BackboneRecord, limits: Limits
    ) -> dict[str, Held]:
        """A file's tensors by key; raises UnsafeArtefactError where there is a pickle only."""
        files = source.sizes()
        if file not in files and pickled in files:
            raise UnsafeArtefactError(
                f"{pickled} is a pickle and is not opened; run `patchbay adapters convert` on the "
                f"folder to get {file}"
            )
        if file not in files:
            raise InvalidArtefactError(f"{source.location} holds no {file}")
        table = read_tensor_table(source, file, limits)
        return by_key(table, file, backbone)
