"""Llama and Mistral."""

from __future__ import annotations

from adapters_store.families.rotary_decoder import RotaryDecoder
from adapters_store.families.rotary_runner import Traits, every_layer

LLAMA = RotaryDecoder("llama", bias_keys={"self": "attention_bias", "ffn": "mlp_bias"}).family()
MISTRAL = RotaryDecoder(
    "mistral",
    default_kv_heads=8,
    traits=Traits(max_positions=131_072, window_rule=every_layer),
).family()
