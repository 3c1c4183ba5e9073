"""Options of ``adapters``' configurations: which convert, which act in training only, which do not.

The tables are the support matrix of docs/registry/adapterhub.md, held to it by a test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Handling = Literal["converts", "ignored", "limited"]
REQUIRED = "<required>"
NUMBER = (int, float)


@dataclass(frozen=True, slots=True)
class Option:
    """One key. ``default`` is what the library takes where the key is absent.

    ``converts``: the value is carried over as ``rule`` says, where it has one of ``types``.
    ``ignored``: it acts in training or initialisation only. ``limited``: values other than those
    in ``allowed`` are rejected, and ``rule`` says why.
    """

    name: str
    default: Any
    handling: Handling
    rule: str
    types: tuple[type, ...] = ()
    allowed: tuple[Any, ...] = ()


def _only(name: str, value: Any, rule: str) -> Option:
    return Option(name, value, "limited", rule, allowed=(value,))


def _training(*names: str) -> tuple[Option, ...]:
    rule = "acts in training or initialisation only"
    return tuple(Option(name, None, "ignored", rule) for name in names)


_LEAVE_OUT = Option(
    "leave_out",
    (),
    "converts",
    "layers without the method, counted through encoder and decoder",
    (list, tuple),
)
_GATING = "a gate over the mean of a row's tokens mixes tokens; no primitive does"

BOTTLENECK = (
    Option("mh_adapter", REQUIRED, "converts", "a bottleneck after every self-attention", (bool,)),
    Option("output_adapter", REQUIRED, "converts", "one after every feed-forward", (bool,)),
    Option("cross_adapter", False, "converts", "one after every cross attention", (bool,)),
    _LEAVE_OUT,
    Option(
        "reduction_factor",
        REQUIRED,
        "converts",
        "width over rank, one number or one per layer with `default`; checked against the tensors",
        (*NUMBER, dict),
    ),
    Option("non_linearity", REQUIRED, "converts", "by name, see activations", (str,)),
    Option("original_ln_before", False, "converts", "see equations", (bool,)),
    Option("original_ln_after", True, "converts", "see equations", (bool,)),
    Option("residual_before_ln", True, "converts", "see equations", (bool, str)),
    Option("is_parallel", False, "converts", "see equations", (bool,)),
    Option("ln_before", False, "converts", "the part's own norm, epsilon 1e-5", (bool,)),
    Option(
        "scaling",
        1.0,
        "converts",
        "a number becomes the scale; `learned` and `channel` are multiplied into `up` and its bias",
        (*NUMBER, str),
    ),
    Option("adapter_residual_before_ln", False, "ignored", "acts beside `ln_after` only", (bool,)),
    _only("ln_after", False, "a norm over what the bottleneck adds is not a part of the primitive"),
    _only("use_gating", False, _GATING),
    _only("inv_adapter", None, "invertible adapters act on the embedding; no primitive does"),
    Option("inv_adapter_reduction_factor", None, "ignored", "acts beside `inv_adapter` only"),
    Option("phm_layer", False, "converts", "Kronecker sums become dense matrices", (bool,)),
    Option("phm_dim", 4, "converts", "checked against the tensors", (int,)),
    Option("phm_rank", 1, "converts", "checked against the tensors", (int,)),
    Option("phm_bias", True, "converts", "without it the biases are zeros", (bool,)),
    Option("shared_phm_rule", True, "converts", "the rule is then required in the file", (bool,)),
    Option("factorized_phm_rule", False, "converts", "multiplied out", (bool,)),
    Option("shared_W_phm", False, "converts", "the matrices are then required once", (bool,)),
    Option("factorized_phm_W", True, "converts", "multiplied out", (bool,)),
    *_training(
        "dropout",
        "stochastic_depth",
        "init_weights",
        "init_weights_seed",
        "learn_phm",
        "phm_c_init",
        "phm_init_range",
        "hypercomplex_nonlinearity",
    ),
)

LORA = (
    Option("selfattn_lora", True, "converts", "queries, keys and values of attentions", (bool,)),
    Option("attn_matrices", ("q", "v"), "converts", "which of them", (list, tuple)),
    Option(
        "intermediate_lora",
        False,
        "converts",
        "the first map of the feed-forward; on Llama and Mistral the last, `down_proj`",
        (bool,),
    ),
    Option(
        "output_lora",
        False,
        "converts",
        "the last map of the feed-forward; on Llama and Mistral `up_proj`",
        (bool,),
    ),
    _LEAVE_OUT,
    Option("r", 8, "converts", "the rank; checked against the tensors", (int,)),
    Option("alpha", 8, "converts", "the scale is alpha / r, for IA3 alpha", NUMBER),
    Option(
        "composition_mode",
        "add",
        "limited",
        "`add` becomes low_rank parts, `scale` scale parts on the output side",
        allowed=("add", "scale"),
    ),
    _only("use_gating", False, _GATING),
    _only("use_dora", False, "DoRA renorms the backbone's own matrices; no primitive does"),
    _only("vera_d", None, "VeRA's random factors are shared by the model and not low-rank parts"),
    _only("vera_b", None, "VeRA's random factors are shared by the model and not low-rank parts"),
    *_training("dropout", "init_weights", "init_weights_seed", "dtype"),
)

PREFIX = (
    Option("encoder_prefix", True, "converts", "rows in an encoder-decoder's encoder", (bool,)),
    Option("cross_prefix", True, "converts", "rows in its cross attention", (bool,)),
    _LEAVE_OUT,
    Option("flat", False, "converts", "otherwise the network's output is stored", (bool,)),
    Option("prefix_length", 30, "converts", "the number of rows", (int,)),
    Option("bottleneck_size", 512, "converts", "checked against the tensors", (int,)),
    Option("non_linearity", "tanh", "converts", "by name, see activations", (str,)),
    _only("use_gating", False, _GATING),
    Option("shared_gating", True, "ignored", "acts beside `use_gating` only"),
    *_training("dropout", "init_weights_seed"),
)

PROMPT = (
    Option("prompt_length", 10, "converts", "the number of rows", (int,)),
    _only("combine", "prefix", "the primitive's rows stand before the first token"),
    *_training("prompt_init", "prompt_init_text", "random_uniform_scale", "init_weights_seed"),
)
