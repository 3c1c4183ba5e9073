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
from adapters_store.families.config import divided, positive_int
from adapters_store.families.family import Family
from adapters_store.families.site import Site

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


FAMILY = Family("bart", sites, anatomy, prefixes=("model.",))
