"""GPT-2: a pre-norm decoder whose queries, keys and values are one packed projection.

Its linear maps are ``Conv1D`` modules: weights are (in, out), biases are always there.
"""

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
from adapters_store.families.config import (
    check_no_cross_attention,
    divided,
    optional_int,
    positive_int,
)
from adapters_store.families.family import Family
from adapters_store.families.site import Site


def sites(config: Mapping[str, Any]) -> tuple[Site, ...]:
    """Every linear site in execution order: qkv o, in out; raises where there is cross attention.

    ``self.qkv`` gives queries, keys and values side by side.
    """
    check_no_cross_attention(config)
    width = positive_int(config, "n_embd")
    ffn = optional_int(config, "n_inner", 4 * width)
    maps = (
        ("self.qkv", "attn.c_attn", width, 3 * width),
        ("self.o", "attn.c_proj", width, width),
        ("ffn.in", "mlp.c_fc", width, ffn),
        ("ffn.out", "mlp.c_proj", ffn, width),
    )
    return tuple(
        Site(f"decoder.{i}.{role}", f"h.{i}.{path}", inputs, outputs)
        for i in range(positive_int(config, "n_layer"))
        for role, path, inputs, outputs in maps
    )


def anatomy(config: Mapping[str, Any]) -> Anatomy:
    """Blocks, attentions, vectors and the input of a GPT-2 decoder."""
    width, heads = positive_int(config, "n_embd"), positive_int(config, "n_head")
    num_layers, head_dim = positive_int(config, "n_layer"), divided(config, "n_embd", "n_head")
    blocks: list[Block] = []
    attentions: list[Attention] = []
    vectors = list(bias_vectors(sites(config), is_present=True))
    for i in range(num_layers):
        for kind, output, norm in (("self", "attn", "ln_1"), ("ffn", "mlp", "ln_2")):
            path, norm = f"h.{i}.{output}.c_proj", f"h.{i}.{norm}"
            tap = Tap(norm, 0)
            blocks.append(Block(f"decoder.{i}.after_{kind}", width, path, tap, norm, None))
            vectors += norm_vectors(f"decoder.{i}.{kind}.norm", norm, width, "layer")
        attentions.append(Attention(f"decoder.{i}.self", f"h.{i}.attn", heads, heads, head_dim))
    vectors += norm_vectors("decoder.final.norm", "ln_f", width, "layer")
    inputs = (Input("decoder", width, "wte", "h.{i}", num_layers, position_path="wpe"),)
    return Anatomy(width, True, tuple(blocks), tuple(attentions), tuple(vectors), inputs)


FAMILY = Family("gpt2", sites, anatomy, prefixes=("transformer.",))
