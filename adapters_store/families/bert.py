"""BERT and its relatives with the same layout, such as MiniLM: a post-norm encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters_store.errors import IncompatibleError
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
from adapters_store.families.config import (
    activation_of,
    check_no_cross_attention,
    divided,
    positive_int,
)
from adapters_store.families.family import Family
from adapters_store.families.site import Site


def sites(config: Mapping[str, Any]) -> tuple[Site, ...]:
    """Every linear site in execution order: q k v o, in out; raises for a model of two stacks."""
    check_no_cross_attention(config)
    width, ffn = positive_int(config, "hidden_size"), positive_int(config, "intermediate_size")
    found: list[Site] = []
    for i in range(positive_int(config, "num_hidden_layers")):
        layer, attention = f"encoder.layer.{i}", f"encoder.layer.{i}.attention"
        for part, module in (("q", "query"), ("k", "key"), ("v", "value")):
            path = f"{attention}.self.{module}"
            found.append(Site(f"encoder.{i}.self.{part}", path, width, width))
        found.append(Site(f"encoder.{i}.self.o", f"{attention}.output.dense", width, width))
        found.append(Site(f"encoder.{i}.ffn.in", f"{layer}.intermediate.dense", width, ffn))
        found.append(Site(f"encoder.{i}.ffn.out", f"{layer}.output.dense", ffn, width))
    return tuple(found)


def architecture(config: Mapping[str, Any]) -> Architecture:
    """The runner's record of a BERT-style encoder; raises where positions are not absolute."""
    position = config.get("position_embedding_type", "absolute")
    if position not in ("absolute", None):
        raise IncompatibleError(f"position_embedding_type is {position!r}; expected 'absolute'")
    head_dim = divided(config, "hidden_size", "num_attention_heads")
    encoder = Stack(
        name="encoder",
        num_layers=positive_int(config, "num_hidden_layers"),
        hidden_size=positive_int(config, "hidden_size"),
        num_heads=positive_int(config, "num_attention_heads"),
        head_dim=head_dim,
        attention_scale=head_dim**-0.5,
        is_causal=False,
        has_cross=False,
        is_gated=False,
        activation=activation_of(config, "hidden_act", "gelu"),
        norm=Norm("layer", float(config.get("layer_norm_eps", 1e-12)), "post"),
        embedding=Embedding(
            token_path="embeddings.word_embeddings",
            position_path="embeddings.position_embeddings",
            type_path="embeddings.token_type_embeddings",
            norm_path="embeddings.LayerNorm",
        ),
        relative_bias=None,
        self_norm_path="encoder.layer.{i}.attention.output.LayerNorm",
        cross_norm_path=None,
        ffn_norm_path="encoder.layer.{i}.output.LayerNorm",
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
    """Blocks, attentions, vectors, the input and the pooler of a BERT-style encoder."""
    width, heads = positive_int(config, "hidden_size"), positive_int(config, "num_attention_heads")
    head_dim = divided(config, "hidden_size", "num_attention_heads")
    num_layers = positive_int(config, "num_hidden_layers")
    blocks: list[Block] = []
    attentions: list[Attention] = []
    vectors = list(bias_vectors(sites(config), is_present=True))
    vectors += norm_vectors("encoder.embedding.norm", "embeddings.LayerNorm", width, "layer")
    for i in range(num_layers):
        layer = f"encoder.layer.{i}"
        for kind, module in (("self", f"{layer}.attention.output"), ("ffn", f"{layer}.output")):
            norm = f"{module}.LayerNorm"
            name = f"encoder.{i}.after_{kind}"
            blocks.append(Block(name, width, f"{module}.dense", Tap(module, 1), None, norm))
            vectors += norm_vectors(f"encoder.{i}.{kind}.norm", norm, width, "layer")
        path = f"{layer}.attention.self"
        attentions.append(Attention(f"encoder.{i}.self", path, heads, heads, head_dim))
    stack = Input(
        "encoder",
        width,
        "embeddings.word_embeddings",
        "encoder.layer.{i}",
        num_layers,
        position_path="embeddings.position_embeddings",
    )
    return Anatomy(
        width,
        False,
        tuple(blocks),
        tuple(attentions),
        tuple(vectors),
        (stack,),
        pooler_path="pooler",
    )


LEGACY_NORMS = (
    (r"\bLayerNorm\.gamma$", "LayerNorm.weight"),
    (r"\bLayerNorm\.beta$", "LayerNorm.bias"),
)
"""Names of norm parameters in the first releases' files."""

FAMILY = Family(
    "bert", sites, anatomy, runner=architecture, prefixes=("bert.",), renames=LEGACY_NORMS
)
