"""DistilBERT: a post-norm encoder like BERT's, without token types and pooler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters_store.families.anatomy import (
    Anatomy,
    Attention,
    Block,
    Input,
    Tap,
    bias_vectors,
    norm_vectors,
)
from adapters_store.families.architecture import (
    Architecture,
    Embedding,
    Norm,
    Stack,
)
from adapters_store.families.config import activation_of, divided, positive_int
from adapters_store.families.family import Family
from adapters_store.families.site import Site

_EPS = 1e-12


def sites(config: Mapping[str, Any]) -> tuple[Site, ...]:
    """Every linear site in execution order: q k v o, in out."""
    width, ffn = positive_int(config, "dim"), positive_int(config, "hidden_dim")
    maps = (
        ("self.q", "attention.q_lin", width, width),
        ("self.k", "attention.k_lin", width, width),
        ("self.v", "attention.v_lin", width, width),
        ("self.o", "attention.out_lin", width, width),
        ("ffn.in", "ffn.lin1", width, ffn),
        ("ffn.out", "ffn.lin2", ffn, width),
    )
    return tuple(
        Site(f"encoder.{i}.{role}", f"transformer.layer.{i}.{path}", inputs, outputs)
        for i in range(positive_int(config, "n_layers"))
        for role, path, inputs, outputs in maps
    )


def architecture(config: Mapping[str, Any]) -> Architecture:
    """The runner's record of a DistilBERT encoder."""
    head_dim = divided(config, "dim", "n_heads")
    encoder = Stack(
        name="encoder",
        num_layers=positive_int(config, "n_layers"),
        hidden_size=positive_int(config, "dim"),
        num_heads=positive_int(config, "n_heads"),
        head_dim=head_dim,
        attention_scale=head_dim**-0.5,
        is_causal=False,
        has_cross=False,
        is_gated=False,
        activation=activation_of(config, "activation", "gelu"),
        norm=Norm("layer", _EPS, "post"),
        embedding=Embedding(
            token_path="embeddings.word_embeddings",
            position_path="embeddings.position_embeddings",
            norm_path="embeddings.LayerNorm",
        ),
        relative_bias=None,
        self_norm_path="transformer.layer.{i}.sa_layer_norm",
        cross_norm_path=None,
        ffn_norm_path="transformer.layer.{i}.output_layer_norm",
        final_norm_path=None,
    )
    return Architecture(
        stacks=(encoder,),
        vocab_size=positive_int(config, "vocab_size"),
        lm_head_path=None,
        lm_head_scale=1.0,
        max_positions=positive_int(config, "max_position_embeddings"),
        pad_token_id=int(config.get("pad_token_id", 0)),
        eos_token_ids=(),
        decoder_start_token_id=None,
    )


def anatomy(config: Mapping[str, Any]) -> Anatomy:
    """Blocks, attentions, vectors and the input; every linear map has a bias."""
    width, heads = positive_int(config, "dim"), positive_int(config, "n_heads")
    head_dim, num_layers = divided(config, "dim", "n_heads"), positive_int(config, "n_layers")
    blocks: list[Block] = []
    attentions: list[Attention] = []
    vectors = list(bias_vectors(sites(config), is_present=True))
    vectors += norm_vectors("encoder.embedding.norm", "embeddings.LayerNorm", width, "layer")
    for i in range(num_layers):
        layer = f"transformer.layer.{i}"
        for kind, output, norm, reader in (
            ("self", "attention.out_lin", "sa_layer_norm", "attention"),
            ("ffn", "ffn.lin2", "output_layer_norm", "ffn"),
        ):
            path, tap = f"{layer}.{output}", Tap(f"{layer}.{reader}", 0)
            name = f"encoder.{i}.after_{kind}"
            blocks.append(Block(name, width, path, tap, None, f"{layer}.{norm}"))
            vectors += norm_vectors(f"encoder.{i}.{kind}.norm", f"{layer}.{norm}", width, "layer")
        path = f"{layer}.attention"
        attentions.append(Attention(f"encoder.{i}.self", path, heads, heads, head_dim))
    stack = Input(
        "encoder",
        width,
        "embeddings.word_embeddings",
        "transformer.layer.{i}",
        num_layers,
        position_path="embeddings.position_embeddings",
    )
    return Anatomy(width, False, tuple(blocks), tuple(attentions), tuple(vectors), (stack,))


FAMILY = Family("distilbert", sites, anatomy, runner=architecture, prefixes=("distilbert.",))
