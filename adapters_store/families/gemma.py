"""Gemma, Gemma 2 and the text model of Gemma 3.

A norm multiplies by ``1 + gain``; the vectors here are the parameters as the model stores them.
"""

from __future__ import annotations

from adapters_store.families.rotary_decoder import RotaryDecoder

_BIAS = {"self": "attention_bias"}

GEMMA = RotaryDecoder("gemma", bias_keys=_BIAS, default_head_dim=256, default_kv_heads=16).family()
GEMMA2 = RotaryDecoder(
    "gemma2", bias_keys=_BIAS, has_post_norms=True, default_head_dim=256, default_kv_heads=4
).family()
GEMMA3_TEXT = RotaryDecoder(
    "gemma3_text",
    bias_keys=_BIAS,
    has_qk_norms=True,
    has_post_norms=True,
    default_head_dim=256,
    default_kv_heads=4,
).family()
