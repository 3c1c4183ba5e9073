"""PEFT folders: ``adapter_config.json`` with ``adapter_model.safetensors``, as PEFT writes them.

One module per method plans what its tensors become, found through a lazy table. Source: the saved
files of peft 0.21.2, against which golden adapters are tested.
"""

from __future__ import annotations

PEFT_METHODS: dict[str, str] = {
    "LORA": "adapters_store.formats.peft.lora:plan",
    "ADALORA": "adapters_store.formats.peft.adalora:plan",
    "IA3": "adapters_store.formats.peft.ia3:plan",
    "LN_TUNING": "adapters_store.formats.peft.norms:plan",
    "PROMPT_TUNING": "adapters_store.formats.peft.prompt:plan",
    "P_TUNING": "adapters_store.formats.peft.prompt:plan",
    "PREFIX_TUNING": "adapters_store.formats.peft.prefix:plan",
    "POLY": "adapters_store.formats.peft.poly:plan",
}
