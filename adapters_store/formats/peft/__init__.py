"""PEFT folders: ``adapter_config.json`` with ``adapter_model.safetensors``, as PEFT writes them.

One module per method plans what its tensors become, found through a lazy table. Source: the saved
files of peft 0.21.2, against which golden adapters are tested.
"""

from __future__ import annotations

PEFT_METHODS: dict[str, str] = {
    "LORA": "adapters_store.formats.peft.lora:plan",
}
