"""The PEFT format: which folders are its, and the plan that a method's module makes of one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters_store.backbone import BackboneRecord
from adapters_store.canonical import strict_json
from adapters_store.errors import InvalidArtefactError
from adapters_store.formats.draft import Draft
from adapters_store.formats.inspection import ImportOptions, Plan
from adapters_store.formats.options import read_settings
from adapters_store.formats.peft import PEFT_METHODS
from adapters_store.formats.peft.settings import SETTINGS
from adapters_store.formats.source import Source, read_file, read_tensor_table
from adapters_store.lazy import resolve
from adapters_store.limits import Limits

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
PICKLED_FILE = "adapter_model.bin"
MAX_CONFIG_BYTES = 4 * 2**20


class PeftFormat:
    """A folder with ``adapter_config.json`` that names a ``peft_type``."""

    name = "peft"

    def recognises(self, source: Source) -> bool:
        """True for a configuration with a ``peft_type``, or beside PEFT's file of weights."""
        files = source.sizes()
        if CONFIG_FILE not in files:
            return False
        if WEIGHTS_FILE in files or PICKLED_FILE in files:
            return True
        try:
            return "peft_type" in _read_config(source)
        except InvalidArtefactError:
            return False

    def plan(
        self, source: Source, backbone: BackboneRecord, options: ImportOptions, limits: Limits
    ) -> Plan:
        """What an import would build; raises InvalidArtefactError where a file is malformed."""
        config = _read_config(source)
        method = config.get("peft_type")
        if not isinstance(method, str):
            raise InvalidArtefactError(
                f"peft_type in {CONFIG_FILE} is {method!r}; expected the name of a method"
            )
        files = source.sizes()
        has_weights = WEIGHTS_FILE in files
        tensors = read_tensor_table(source, WEIGHTS_FILE, limits) if has_weights else ()
        draft = Draft(self.name, source, backbone, options, limits, WEIGHTS_FILE, tensors)
        if not has_weights:
            _refuse_without_weights(draft, PICKLED_FILE in files)
        elif method not in PEFT_METHODS:
            draft.stop()
            draft.reject(
                "unsupported_method",
                f"peft_type {method!r} is not imported; known: {sorted(PEFT_METHODS)}",
                CONFIG_FILE,
            )
        else:
            base = config.get("base_model_name_or_path")
            if base:
                draft.note(
                    "recorded",
                    f"made for base model {str(base)[:200]!r}; its name is not checked",
                    "base_model_name_or_path",
                )
            settings = read_settings(draft, SETTINGS[method], config)
            if settings is not None:
                resolve(PEFT_METHODS, method, "PEFT method")(draft, settings)
        return draft.finish(method)


def _read_config(source: Source) -> Mapping[str, Any]:
    config = strict_json(read_file(source, CONFIG_FILE, MAX_CONFIG_BYTES), CONFIG_FILE)
    if not isinstance(config, dict):
        raise InvalidArtefactError(f"{CONFIG_FILE} is not a JSON object")
    return config


def _refuse_without_weights(draft: Draft, is_pickled: bool) -> None:
    if is_pickled:
        draft.reject(
            "unsafe",
            f"{PICKLED_FILE} is a pickle and is not opened; run `patchbay adapters convert` on "
            f"the folder to get {WEIGHTS_FILE}",
            PICKLED_FILE,
        )
    else:
        draft.reject("missing_tensor", f"{WEIGHTS_FILE} is absent", WEIGHTS_FILE)
