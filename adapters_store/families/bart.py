"""BART, whose norms stand behind the sub-layers, and mBART, whose norms stand before them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Literal

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
from adapters_store.families.architecture import Architecture, Embedding, Norm, Stack
from adapters_store.families.config import (
    activation_of,
    divided,
    positive_int,
    token_id,
    token_ids,
)
from adapters_store.families.family import Family
from adapters_store.families.site import Site

_EPS = 1e-5
_FIRST_POSITION = 2
"""The row of the position table that the first token reads."""
_STACKS: tuple[Literal["encoder", "decoder"], ...] = ("encoder", "decoder")


def _attentions(stack: str) -> tuple[tuple[str, str], ...]:
    own = ("self", "self_attn")
    return (own, ("cross", "encoder_attn")) if stack == "decoder" else (own,)


def sites(config: Mapping[str, Any]) -> tuple[Site, ...]:
    """Every linear site in execution order: encoder layers first, q k v o, cross, in out."""
    width = positive_int(config, "d_model")
    found: list[Site] = []
    for stack in _STACKS:
        ffn = positive_int(config, f"{stack}_ffn_dim")
        for i in range(positive_int(config, f"{stack}_layers")):
            layer = f"{stack}.layers.{i}"
            for kind, module in _attentions(stack):
                for part in ("q", "k", "v"):
                    path = f"{layer}.{module}.{part}_proj"
                    found.append(Site(f"{stack}.{i}.{kind}.{part}", path, width, width))
                path = f"{layer}.{module}.out_proj"
                found.append(Site(f"{stack}.{i}.{kind}.o", path, width, width))
            found.append(Site(f"{stack}.{i}.ffn.in", f"{layer}.fc1", width, ffn))
            found.append(Site(f"{stack}.{i}.ffn.out", f"{layer}.fc2", ffn, width))
    return tuple(found)


def anatomy(config: Mapping[str, Any]) -> Anatomy:
    """Blocks, attentions, vectors and inputs; every linear map has a bias."""
    width = positive_int(config, "d_model")
    is_pre = config.get("model_type") == "mbart"
    blocks: list[Block] = []
    attentions: list[Attention] = []
    vectors: list[Vector] = list(bias_vectors(sites(config), is_present=True))
    inputs: list[Input] = []
    for stack in _STACKS:
        num_layers, heads_key = positive_int(config, f"{stack}_layers"), f"{stack}_attention_heads"
        heads, head_dim = positive_int(config, heads_key), divided(config, "d_model", heads_key)
        embedding_norm = f"{stack}.layernorm_embedding"
        vectors += norm_vectors(f"{stack}.embedding.norm", embedding_norm, width, "layer")
        for i in range(num_layers):
            layer = f"{stack}.layers.{i}"
            for kind, module in _attentions(stack):
                name, path = f"{stack}.{i}.{kind}", f"{layer}.{module}"
                attentions.append(Attention(name, path, heads, heads, head_dim))
            for kind, output, norm, reader in _sub_layers(stack, layer):
                name = f"{stack}.{i}.after_{kind}"
                if is_pre:
                    blocks.append(Block(name, width, output, Tap(norm, 0), norm, None))
                else:
                    blocks.append(Block(name, width, output, Tap(reader, 0), None, norm))
                vectors += norm_vectors(f"{stack}.{i}.{kind}.norm", norm, width, "layer")
        if is_pre:
            vectors += norm_vectors(f"{stack}.final.norm", f"{stack}.layer_norm", width, "layer")
        layers = f"{stack}.layers.{{i}}"
        tokens, positions = f"{stack}.embed_tokens", f"{stack}.embed_positions"
        inputs.append(Input(stack, width, tokens, layers, num_layers, stack, positions))
    return Anatomy(width, True, tuple(blocks), tuple(attentions), tuple(vectors), tuple(inputs))


def _sub_layers(stack: str, layer: str) -> Iterator[tuple[str, str, str, str]]:
    """Each sub-layer's kind, the module that ends it, its norm, and a module called with x."""
    for kind, module in _attentions(stack):
        path = f"{layer}.{module}"
        reader = layer if kind == "self" else path
        yield kind, f"{path}.out_proj", f"{path}_layer_norm", reader
    yield "ffn", f"{layer}.fc2", f"{layer}.final_layer_norm", f"{layer}.fc1"


def architecture(config: Mapping[str, Any]) -> Architecture:
    """The runner's record; norms stand before the sub-layers in mBART, behind them in BART."""
    is_pre = config.get("model_type") == "mbart"
    ends = token_ids(config, "eos_token_id", 2)
    start = token_id(config, "bos_token_id", 0)
    return Architecture(
        stacks=tuple(_stack(config, name, is_pre=is_pre) for name in _STACKS),
        vocab_size=positive_int(config, "vocab_size"),
        lm_head_path="lm_head",
        lm_head_scale=1.0,
        max_positions=positive_int(config, "max_position_embeddings"),
        pad_token_id=token_id(config, "pad_token_id", 1),
        eos_token_ids=ends,
        decoder_start_token_id=token_id(config, "decoder_start_token_id", start),
        lm_bias_path="final_logits_bias",
    )


def _stack(
    config: Mapping[str, Any], name: Literal["encoder", "decoder"], *, is_pre: bool
) -> Stack:
    is_decoder = name == "decoder"
    head_dim = divided(config, "d_model", f"{name}_attention_heads")
    width, layer = positive_int(config, "d_model"), f"{name}.layers.{{i}}"
    return Stack(
        name=name,
        num_layers=positive_int(config, f"{name}_layers"),
        hidden_size=width,
        num_heads=positive_int(config, f"{name}_attention_heads"),
        head_dim=head_dim,
        attention_scale=head_dim**-0.5,
        is_causal=is_decoder,
        has_cross=is_decoder,
        is_gated=False,
        activation=activation_of(config, "activation_function", "gelu"),
        norm=Norm("layer", _EPS, "pre" if is_pre else "post"),
        embedding=Embedding(
            "shared",
            position_path=f"{name}.embed_positions",
            norm_path=f"{name}.layernorm_embedding",
            position_offset=_FIRST_POSITION,
            scale=width**0.5 if config.get("scale_embedding") else 1.0,
        ),
        relative_bias=None,
        self_norm_path=f"{layer}.self_attn_layer_norm",
        cross_norm_path=f"{layer}.encoder_attn_layer_norm" if is_decoder else None,
        ffn_norm_path=f"{layer}.final_layer_norm",
        final_norm_path=f"{name}.layer_norm" if is_pre else None,
    )


FAMILY = Family("bart", sites, anatomy, runner=architecture, prefixes=("model.",))
