"""ViT for images and AST for spectrograms: one pre-norm encoder over patches."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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

RENAMES = (
    (r"^encoder\.layer\.", "layers."),
    (r"\.attention\.attention\.(query|key|value)\b", r".attention.\1"),
    (r"\.attention\.attention$", ".attention"),
    (r"\.attention\.query\b", ".attention.q_proj"),
    (r"\.attention\.key\b", ".attention.k_proj"),
    (r"\.attention\.value\b", ".attention.v_proj"),
    (r"\.attention\.output\.dense\b", ".attention.o_proj"),
    (r"\.intermediate\.dense\b", ".mlp.fc1"),
    (r"^(layers\.\d+)\.output\.dense\b", r"\1.mlp.fc2"),
)
"""The names of transformers 4."""


def sites(config: Mapping[str, Any]) -> tuple[Site, ...]:
    """Every linear site in execution order: q k v o, in out."""
    width, ffn = positive_int(config, "hidden_size"), positive_int(config, "intermediate_size")
    maps = (
        ("self.q", "attention.q_proj", width, width),
        ("self.k", "attention.k_proj", width, width),
        ("self.v", "attention.v_proj", width, width),
        ("self.o", "attention.o_proj", width, width),
        ("ffn.in", "mlp.fc1", width, ffn),
        ("ffn.out", "mlp.fc2", ffn, width),
    )
    return tuple(
        Site(f"encoder.{i}.{role}", f"layers.{i}.{path}", inputs, outputs)
        for i in range(positive_int(config, "num_hidden_layers"))
        for role, path, inputs, outputs in maps
    )


def vit_anatomy(config: Mapping[str, Any]) -> Anatomy:
    """Places of a ViT; its pooler counts where it is tanh over as many features."""
    width = positive_int(config, "hidden_size")
    is_plain = config.get("pooler_act", "tanh") == "tanh" and config.get("pooler_output_size") in (
        None,
        width,
    )
    return _anatomy(config, "pooler" if is_plain else None)


def ast_anatomy(config: Mapping[str, Any]) -> Anatomy:
    """Places of an AST, which has no pooler: its first two tokens are averaged."""
    return _anatomy(config, None)


def _anatomy(config: Mapping[str, Any], pooler_path: str | None) -> Anatomy:
    width, heads = positive_int(config, "hidden_size"), positive_int(config, "num_attention_heads")
    head_dim = divided(config, "hidden_size", "num_attention_heads")
    num_layers = positive_int(config, "num_hidden_layers")
    blocks: list[Block] = []
    attentions: list[Attention] = []
    vectors: list[Vector] = []
    for site in sites(config):
        is_qkv = site.role in ("self.q", "self.k", "self.v")
        is_present = bool(config.get("qkv_bias", True)) if is_qkv else True
        vectors += bias_vectors([site], is_present=is_present)
    for i in range(num_layers):
        layer = f"layers.{i}"
        for kind, output, norm in (
            ("self", "attention.o_proj", "layernorm_before"),
            ("ffn", "mlp.fc2", "layernorm_after"),
        ):
            path, norm = f"{layer}.{output}", f"{layer}.{norm}"
            tap = Tap(norm, 0)
            blocks.append(Block(f"encoder.{i}.after_{kind}", width, path, tap, norm, None))
            vectors += norm_vectors(f"encoder.{i}.{kind}.norm", norm, width, "layer")
        path = f"{layer}.attention"
        attentions.append(Attention(f"encoder.{i}.self", path, heads, heads, head_dim))
    vectors += norm_vectors("encoder.final.norm", "layernorm", width, "layer")
    inputs = (Input("encoder", width, "embeddings", "layers.{i}", num_layers),)
    places = tuple(blocks), tuple(attentions), tuple(vectors), inputs
    return Anatomy(width, False, *places, pooler_path=pooler_path)


VIT = Family("vit", sites, vit_anatomy, prefixes=("vit.",), renames=RENAMES)
AST = Family(
    "ast", sites, ast_anatomy, prefixes=("audio_spectrogram_transformer.",), renames=RENAMES
)
