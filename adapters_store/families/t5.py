"""T5, mT5, ByT5 and UMT5: pre-norm RMS encoder-decoder with bucketed relative positions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from adapters_store.errors import IncompatibleError
from adapters_store.families.anatomy import (
    Anatomy,
    Attention,
    Block,
    Input,
    Tap,
    Vector,
    bias_vectors,
    norm_vectors,
)
from adapters_store.families.architecture import (
    Activation,
    Architecture,
    Embedding,
    Norm,
    RelativeBias,
    Stack,
)
from adapters_store.families.config import ACTIVATIONS, positive_int, token_id, token_ids
from adapters_store.families.family import Family
from adapters_store.families.site import Site


def _layers(config: Mapping[str, Any], stack: str) -> int:
    num_layers = positive_int(config, "num_layers")
    if stack == "encoder":
        return num_layers
    num_decoder_layers = config.get("num_decoder_layers")
    return num_layers if num_decoder_layers is None else int(num_decoder_layers)


def _feed_forward(config: Mapping[str, Any]) -> tuple[bool, Activation]:
    default = "relu" if config.get("model_type") == "t5" else "gated-gelu"
    projection = str(config.get("feed_forward_proj", default))
    is_gated = projection.startswith("gated-")
    name = projection.removeprefix("gated-")
    if projection == "gated-gelu":
        name = "gelu_new"
    if name not in ACTIVATIONS:
        raise IncompatibleError(
            f"feed_forward_proj {projection!r} has an activation that is not supported; "
            f"known: {sorted(ACTIVATIONS)}"
        )
    return is_gated, ACTIVATIONS[name]


def sites(config: Mapping[str, Any]) -> tuple[Site, ...]:
    """Every linear site in execution order: encoder layers first, q k v o, cross, gate in out."""
    width, ffn = positive_int(config, "d_model"), positive_int(config, "d_ff")
    inner = positive_int(config, "num_heads") * positive_int(config, "d_kv")
    is_gated, _ = _feed_forward(config)
    found: list[Site] = []
    for stack in ("encoder", "decoder"):
        for i in range(_layers(config, stack)):
            block = f"{stack}.block.{i}.layer"
            attentions = [("self", f"{block}.0.SelfAttention")]
            if stack == "decoder":
                attentions.append(("cross", f"{block}.1.EncDecAttention"))
            for kind, path in attentions:
                for part in ("q", "k", "v"):
                    found.append(Site(f"{stack}.{i}.{kind}.{part}", f"{path}.{part}", width, inner))
                found.append(Site(f"{stack}.{i}.{kind}.o", f"{path}.o", inner, width))
            dense = f"{block}.{len(attentions)}.DenseReluDense"
            if is_gated:
                found.append(Site(f"{stack}.{i}.ffn.gate", f"{dense}.wi_0", width, ffn))
                found.append(Site(f"{stack}.{i}.ffn.in", f"{dense}.wi_1", width, ffn))
            else:
                found.append(Site(f"{stack}.{i}.ffn.in", f"{dense}.wi", width, ffn))
            found.append(Site(f"{stack}.{i}.ffn.out", f"{dense}.wo", ffn, width))
    return tuple(found)


def _relative_bias(config: Mapping[str, Any], stack: str, layer: int | str) -> RelativeBias:
    """The bias of one layer's self-attention: its own in UMT5, else the first layer's."""
    owner = layer if config.get("model_type") == "umt5" else 0
    return RelativeBias(
        path=f"{stack}.block.{owner}.layer.0.SelfAttention.relative_attention_bias",
        num_buckets=int(config.get("relative_attention_num_buckets", 32)),
        max_distance=int(config.get("relative_attention_max_distance", 128)),
        is_bidirectional=stack == "encoder",
    )


def architecture(config: Mapping[str, Any]) -> Architecture:
    """The runner's record of a T5-style model."""
    is_gated, activation = _feed_forward(config)
    stacks = []
    for name in ("encoder", "decoder"):
        is_decoder = name == "decoder"
        block = f"{name}.block.{{i}}.layer"
        stacks.append(
            Stack(
                name="decoder" if is_decoder else "encoder",
                num_layers=_layers(config, name),
                hidden_size=positive_int(config, "d_model"),
                num_heads=positive_int(config, "num_heads"),
                head_dim=positive_int(config, "d_kv"),
                attention_scale=1.0,
                is_causal=is_decoder,
                has_cross=is_decoder,
                is_gated=is_gated,
                activation=activation,
                norm=Norm("rms", float(config.get("layer_norm_epsilon", 1e-6)), "pre"),
                embedding=Embedding(token_path="shared"),
                relative_bias=_relative_bias(config, name, "{i}"),
                self_norm_path=f"{block}.0.layer_norm",
                cross_norm_path=f"{block}.1.layer_norm" if is_decoder else None,
                ffn_norm_path=f"{block}.{2 if is_decoder else 1}.layer_norm",
                final_norm_path=f"{name}.final_layer_norm",
            )
        )
    return Architecture(
        stacks=tuple(stacks),
        vocab_size=positive_int(config, "vocab_size"),
        lm_head_path="lm_head",
        lm_head_scale=float(positive_int(config, "d_model")) ** -0.5 if _is_scaled(config) else 1.0,
        max_positions=None,
        pad_token_id=token_id(config, "pad_token_id", 0),
        eos_token_ids=token_ids(config, "eos_token_id", 1),
        decoder_start_token_id=token_id(config, "decoder_start_token_id", 0),
    )


def _is_scaled(config: Mapping[str, Any]) -> bool:
    """Whether logits are scaled by the width: by its setting in T5, always in UMT5."""
    if config.get("model_type") != "t5":
        return config.get("model_type") == "umt5"
    is_tied = bool(config.get("tie_word_embeddings", True))
    return bool(config.get("scale_decoder_outputs", is_tied))


def anatomy(config: Mapping[str, Any]) -> Anatomy:
    """Blocks, attentions, vectors and inputs of a T5-style model; its linear maps have no bias."""
    width, heads = positive_int(config, "d_model"), positive_int(config, "num_heads")
    head_dim = positive_int(config, "d_kv")
    blocks: list[Block] = []
    attentions: list[Attention] = []
    vectors: list[Vector] = list(bias_vectors(sites(config), is_present=False))
    inputs: list[Input] = []
    stacks: tuple[Literal["encoder", "decoder"], ...] = ("encoder", "decoder")
    for stack in stacks:
        sub_layers = [("self", "SelfAttention"), ("ffn", "DenseReluDense")]
        if stack == "decoder":
            sub_layers.insert(1, ("cross", "EncDecAttention"))
        for i in range(_layers(config, stack)):
            for j, (kind, module) in enumerate(sub_layers):
                path = f"{stack}.block.{i}.layer.{j}"
                output = f"{path}.{module}.{'wo' if kind == 'ffn' else 'o'}"
                norm = f"{path}.layer_norm"
                tap = Tap(norm, 0)
                blocks.append(Block(f"{stack}.{i}.after_{kind}", width, output, tap, norm, None))
                vectors += norm_vectors(f"{stack}.{i}.{kind}.norm", norm, width, "rms")
                if kind != "ffn":
                    bias = _relative_bias(config, stack, i) if kind == "self" else None
                    attentions.append(
                        Attention(
                            f"{stack}.{i}.{kind}",
                            f"{path}.{module}",
                            heads,
                            heads,
                            head_dim,
                            bias,
                        )
                    )
        final = f"{stack}.final_layer_norm"
        vectors += norm_vectors(f"{stack}.final.norm", final, width, "rms")
        layers = f"{stack}.block.{{i}}"
        num_layers, tokens = _layers(config, stack), f"{stack}.embed_tokens"
        inputs.append(Input(stack, width, tokens, layers, num_layers, stack_path=stack))
    return Anatomy(width, True, tuple(blocks), tuple(attentions), tuple(vectors), tuple(inputs))


FAMILY = Family("t5", sites, anatomy, runner=architecture, prefixes=("transformer.",))
