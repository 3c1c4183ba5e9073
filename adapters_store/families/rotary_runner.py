"""The engine's record of a rotary decoder, and what it must know of a model type for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from adapters_store.errors import IncompatibleError
from adapters_store.families.architecture import (
    Architecture,
    Embedding,
    Norm,
    Reach,
    Stack,
)
from adapters_store.families.config import (
    activation_of,
    optional_float,
    optional_int,
    positive_int,
    token_id,
    token_ids,
)
from adapters_store.families.rope import layered_rotary_of, rotary_of

Config = Mapping[str, Any]
WindowRule = Callable[[Config, int], bool]
"""Whether the layer of that index has a window."""


def every_layer(config: Config, layer: int) -> bool:
    """Mistral: the window holds in every layer."""
    return True


def late_layers(config: Config, layer: int) -> bool:
    """Qwen: where windows are in use, layers from ``max_window_layers`` on have one."""
    if not config.get("use_sliding_window"):
        return False
    return layer >= optional_int(config, "max_window_layers", 28)


def alternate_layers(config: Config, layer: int) -> bool:
    """Gemma 2: every other layer, from the first."""
    return layer % 2 == 0


def most_layers(config: Config, layer: int) -> bool:
    """Gemma 3: all but every sixth, or what ``sliding_window_pattern`` says."""
    return bool((layer + 1) % optional_int(config, "sliding_window_pattern", 6))


@dataclass(frozen=True, slots=True)
class Traits:
    """How one model type computes, beyond its places; defaults are what a missing key means.

    ``window_rule`` is None where the type has no windows; ``layer_types`` in the configuration
    goes before it. ``is_gemma``: norms multiply by 1 + gain, embeddings are scaled.
    ``has_query_scalar``: scores are scaled by ``query_pre_attn_scalar`` instead of the head width.
    """

    activation_key: str = "hidden_act"
    activation: str = "silu"
    max_positions: int = 2048
    eos_token_id: int | None = 2
    window_rule: WindowRule | None = None
    has_layered_rotary: bool = False
    is_gemma: bool = False
    has_query_scalar: bool = False
    has_attention_softcap: bool = False
    attention_softcap: float | None = None
    logit_softcap: float | None = None


def architecture(
    traits: Traits,
    config: Config,
    heads: tuple[int, int, int],
    *,
    has_qk_norms: bool,
    has_post_norms: bool,
) -> Architecture:
    """The record; ``heads`` are query heads, key-value heads and head width.

    Raises IncompatibleError for bidirectional attention and what :mod:`rope` refuses.
    """
    if config.get("use_bidirectional_attention"):
        raise IncompatibleError("use_bidirectional_attention is set; the engine runs causal models")
    num_heads, num_kv_heads, head_dim = heads
    width = positive_int(config, "hidden_size")
    scalar = optional_int(config, "query_pre_attn_scalar", 256)
    layer = "layers.{i}"
    before_ffn = "pre_feedforward_layernorm" if has_post_norms else "post_attention_layernorm"
    activation = activation_of(config, traits.activation_key, traits.activation)
    softcap = optional_float(config, "attn_logit_softcapping", traits.attention_softcap)
    decoder = Stack(
        name="decoder",
        num_layers=positive_int(config, "num_hidden_layers"),
        hidden_size=width,
        num_heads=num_heads,
        head_dim=head_dim,
        attention_scale=(scalar if traits.has_query_scalar else head_dim) ** -0.5,
        is_causal=True,
        has_cross=False,
        is_gated=True,
        activation="gelu_tanh" if traits.is_gemma and activation == "gelu" else activation,
        norm=Norm(
            "rms",
            optional_float(config, "rms_norm_eps", 1e-6) or 0.0,
            "pre",
            gain_offset=1.0 if traits.is_gemma else 0.0,
        ),
        embedding=Embedding("embed_tokens", scale=width**0.5 if traits.is_gemma else 1.0),
        relative_bias=None,
        self_norm_path=f"{layer}.input_layernorm",
        cross_norm_path=None,
        ffn_norm_path=f"{layer}.{before_ffn}",
        final_norm_path="norm",
        num_kv_heads=num_kv_heads,
        reaches=_reaches(traits, config),
        softcap=softcap if traits.has_attention_softcap else None,
        self_post_norm_path=f"{layer}.post_attention_layernorm" if has_post_norms else None,
        ffn_post_norm_path=f"{layer}.post_feedforward_layernorm" if has_post_norms else None,
        q_norm_path=f"{layer}.self_attn.q_norm" if has_qk_norms else None,
        k_norm_path=f"{layer}.self_attn.k_norm" if has_qk_norms else None,
    )
    return Architecture(
        stacks=(decoder,),
        vocab_size=positive_int(config, "vocab_size"),
        lm_head_path="lm_head",
        lm_head_scale=1.0,
        max_positions=optional_int(config, "max_position_embeddings", traits.max_positions),
        pad_token_id=token_id(config, "pad_token_id", 0),
        eos_token_ids=token_ids(config, "eos_token_id", traits.eos_token_id),
        decoder_start_token_id=None,
        logit_softcap=optional_float(config, "final_logit_softcapping", traits.logit_softcap),
    )


def _reaches(traits: Traits, config: Config) -> tuple[Reach, ...]:
    num_layers = positive_int(config, "num_hidden_layers")
    if traits.has_layered_rotary:
        full, sliding = layered_rotary_of(config)
    else:
        full = sliding = rotary_of(config)
    window = _window(config)
    reaches = []
    for layer in range(num_layers):
        if _has_window(traits, config, layer):
            reaches.append(Reach(window, sliding))
        else:
            reaches.append(Reach(None, full))
    return tuple(reaches)


def _window(config: Config) -> int | None:
    if "sliding_window" not in config:
        return 4096
    return None if config["sliding_window"] is None else positive_int(config, "sliding_window")


def _has_window(traits: Traits, config: Config, layer: int) -> bool:
    if traits.window_rule is None:
        return False
    types = config.get("layer_types")
    if types is None or traits.window_rule is every_layer:
        return traits.window_rule(config, layer)
    if len(types) <= layer or types[layer] not in ("full_attention", "sliding_attention"):
        raise IncompatibleError(
            f"layer_types in config.json gives no known type for layer {layer}; "
            "known: full_attention, sliding_attention"
        )
    return bool(types[layer] == "sliding_attention")
