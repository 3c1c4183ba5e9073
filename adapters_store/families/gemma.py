"""Gemma, Gemma 2 and the text model of Gemma 3.

A norm multiplies by ``1 + gain``; the vectors here are the parameters as the model stores them.
"""

from __future__ import annotations

from dataclasses import replace

from adapters_store.families.rotary_decoder import RotaryDecoder
from adapters_store.families.rotary_runner import Traits, alternate_layers, most_layers

_BIAS = {"self": "attention_bias"}
_GEMMA = Traits(activation="gelu_pytorch_tanh", max_positions=8192, eos_token_id=1, is_gemma=True)
_LATER = replace(_GEMMA, activation_key="hidden_activation", has_query_scalar=True)

GEMMA = RotaryDecoder(
    "gemma", bias_keys=_BIAS, default_head_dim=256, default_kv_heads=16, traits=_GEMMA
).family()
GEMMA2 = RotaryDecoder(
    "gemma2",
    bias_keys=_BIAS,
    has_post_norms=True,
    default_head_dim=256,
    default_kv_heads=4,
    traits=replace(
        _LATER,
        window_rule=alternate_layers,
        has_attention_softcap=True,
        attention_softcap=50.0,
        logit_softcap=30.0,
    ),
).family()
GEMMA3_TEXT = RotaryDecoder(
    "gemma3_text",
    bias_keys=_BIAS,
    has_qk_norms=True,
    has_post_norms=True,
    default_head_dim=256,
    default_kv_heads=4,
    traits=replace(_LATER, max_positions=131_072, window_rule=most_layers, has_layered_rotary=True),
).family()
