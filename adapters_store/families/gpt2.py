"""GPT-2: a pre-norm decoder whose queries, keys and values are one packed projection.

Its linear maps are ``Conv1D`` modules: weights are (in, out), biases are always there.
"""

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
from adapters_store.families.architecture import Architecture, Embedding, Norm, Stack
from adapters_store.families.config import (
    activation_of,
    check_no_cross_attention,
    divided,
    optional_float,
    optional_int,
    positive_int,
    token_id,
    token_ids,
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


def architecture(config: Mapping[str, Any]) -> Architecture:
    """The runner's record; raises where scores are scaled otherwise than by the head width."""
    for key, expected in (("scale_attn_weights", True), ("scale_attn_by_inverse_layer_idx", False)):
        if bool(config.get(key, expected)) != expected:
            raise IncompatibleError(f"{key} is {config[key]!r}; the engine runs {expected}")
    head_dim = divided(config, "n_embd", "n_head")
    decoder = Stack(
        name="decoder",
        num_layers=positive_int(config, "n_layer"),
        hidden_size=positive_int(config, "n_embd"),
        num_heads=positive_int(config, "n_head"),
        head_dim=head_dim,
        attention_scale=head_dim**-0.5,
        is_causal=True,
        has_cross=False,
        is_gated=False,
        activation=activation_of(config, "activation_function", "gelu_new"),
        norm=Norm("layer", optional_float(config, "layer_norm_epsilon", 1e-5) or 0.0, "pre"),
        embedding=Embedding("wte", position_path="wpe"),
        relative_bias=None,
        self_norm_path="h.{i}.ln_1",
        cross_norm_path=None,
        ffn_norm_path="h.{i}.ln_2",
        final_norm_path="ln_f",
    )
    return Architecture(
        stacks=(decoder,),
        vocab_size=positive_int(config, "vocab_size"),
        lm_head_path="lm_head",
        lm_head_scale=1.0,
        max_positions=positive_int(config, "n_positions"),
        pad_token_id=token_id(config, "pad_token_id", 0),
        eos_token_ids=token_ids(config, "eos_token_id", 50256),
        decoder_start_token_id=None,
        has_transposed_linears=True,
    )


FAMILY = Family("gpt2", sites, anatomy, runner=architecture, prefixes=("transformer.",))
