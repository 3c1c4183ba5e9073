"""Qwen2 (and 2.5), whose queries, keys and values have biases, and Qwen3, which norms them."""

from __future__ import annotations

from adapters_store.families.rotary_decoder import RotaryDecoder
from adapters_store.families.rotary_runner import Traits, late_layers

_TRAITS = Traits(max_positions=32_768, eos_token_id=None, window_rule=late_layers)

QWEN2 = RotaryDecoder(
    "qwen2",
    bias_roles=frozenset({"self.q", "self.k", "self.v"}),
    default_kv_heads=32,
    traits=_TRAITS,
).family()
QWEN3 = RotaryDecoder(
    "qwen3",
    bias_keys={"self": "attention_bias"},
    has_qk_norms=True,
    default_head_dim=128,
    default_kv_heads=32,
    traits=_TRAITS,
).family()
