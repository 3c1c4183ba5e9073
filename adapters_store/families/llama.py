"""Llama and Mistral."""

from __future__ import annotations

from adapters_store.families.rotary_decoder import RotaryDecoder

LLAMA = RotaryDecoder("llama", bias_keys={"self": "attention_bias", "ffn": "mlp_bias"}).family()
MISTRAL = RotaryDecoder("mistral", default_kv_heads=8).family()
