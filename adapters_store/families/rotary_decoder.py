"""The layout that Llama, Mistral, Qwen and Gemma share: a pre-norm decoder with rotary positions.

Each layer is attention with grouped queries, then a gated feed-forward; norms are RMS. What the
model types do differently is data: a :class:`RotaryDecoder` per type.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from adapters_store.errors import InvalidArtefactError
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
from adapters_store.families.architecture import Architecture
from adapters_store.families.config import divided, positive_int
from adapters_store.families.family import Family
from adapters_store.families.rotary_runner import Traits
from adapters_store.families.rotary_runner import architecture as runner_of
from adapters_store.families.site import Site

Config = Mapping[str, Any]

PREFIXES = ("model.", "language_model.", "transformer.")
"""Heads stand beside ``model`` or, in old releases, ``transformer``; vision-language models put
the text model under ``language_model``."""

_PLAIN = (
    ("self", "self_attn.o_proj", "input_layernorm"),
    ("ffn", "mlp.down_proj", "post_attention_layernorm"),
)
_SANDWICHED = (
    ("self", "post_attention_layernorm", "input_layernorm"),
    ("ffn", "post_feedforward_layernorm", "pre_feedforward_layernorm"),
)


@dataclass(frozen=True, slots=True)
class RotaryDecoder:
    """How one model type fills the layout.

    ``bias_roles`` always have a bias; ``bias_keys`` names, per sub-layer, the setting that gives
    its other linear maps one. ``has_qk_norms`` norms each head's queries and keys;
    ``has_post_norms`` norms what a sub-layer adds as well as what it reads. ``traits`` are what
    only the engine asks. The defaults are what
    the model type means by a key that config.json leaves out; without one, and for null, the head
    width follows from the hidden width and every query head has its own keys.
    """

    name: str
    bias_roles: frozenset[str] = frozenset()
    bias_keys: Mapping[str, str] = field(default_factory=dict)
    has_qk_norms: bool = False
    has_post_norms: bool = False
    default_head_dim: int | None = None
    default_kv_heads: int | None = None
    traits: Traits = field(default_factory=Traits)

    def family(self) -> Family:
        """The record."""
        return Family(
            self.name, self.sites, self.anatomy, runner=self.architecture, prefixes=PREFIXES
        )

    def architecture(self, config: Config) -> Architecture:
        """The runner's record of the whole model."""
        return runner_of(
            self.traits,
            config,
            self._heads(config),
            has_qk_norms=self.has_qk_norms,
            has_post_norms=self.has_post_norms,
        )

    def sites(self, config: Config) -> tuple[Site, ...]:
        """Every linear site in execution order: q k v o, gate in out."""
        width, ffn = positive_int(config, "hidden_size"), positive_int(config, "intermediate_size")
        heads, kv_heads, head_dim = self._heads(config)
        queries, keys = heads * head_dim, kv_heads * head_dim
        maps = (
            ("self.q", "self_attn.q_proj", width, queries),
            ("self.k", "self_attn.k_proj", width, keys),
            ("self.v", "self_attn.v_proj", width, keys),
            ("self.o", "self_attn.o_proj", queries, width),
            ("ffn.gate", "mlp.gate_proj", width, ffn),
            ("ffn.in", "mlp.up_proj", width, ffn),
            ("ffn.out", "mlp.down_proj", ffn, width),
        )
        return tuple(
            Site(f"decoder.{i}.{role}", f"layers.{i}.{path}", inputs, outputs)
            for i in range(positive_int(config, "num_hidden_layers"))
            for role, path, inputs, outputs in maps
        )

    def anatomy(self, config: Config) -> Anatomy:
        """Blocks, attentions, vectors and the input of the decoder."""
        width, num_layers = (
            positive_int(config, "hidden_size"),
            positive_int(config, "num_hidden_layers"),
        )
        heads, kv_heads, head_dim = self._heads(config)
        blocks: list[Block] = []
        attentions: list[Attention] = []
        vectors: list[Vector] = []
        for site in self.sites(config):
            vectors += bias_vectors([site], is_present=self._has_bias(config, site))
        for i in range(num_layers):
            for kind, output, pre_norm in _SANDWICHED if self.has_post_norms else _PLAIN:
                name, norm = f"decoder.{i}.{kind}", f"layers.{i}.{pre_norm}"
                path = f"layers.{i}.{output}"
                tap = Tap(norm, 0)
                blocks.append(Block(f"decoder.{i}.after_{kind}", width, path, tap, norm, None))
                vectors += norm_vectors(f"{name}.norm", norm, width, "rms")
                if self.has_post_norms:
                    vectors += norm_vectors(f"{name}.post_norm", path, width, "rms")
            name, path = f"decoder.{i}.self", f"layers.{i}.self_attn"
            attentions.append(Attention(name, path, heads, kv_heads, head_dim))
            for part in ("q", "k") if self.has_qk_norms else ():
                vectors += norm_vectors(
                    f"{name}.{part}_norm", f"{path}.{part}_norm", head_dim, "rms"
                )
        vectors += norm_vectors("decoder.final.norm", "norm", width, "rms")
        stack = Input(
            "decoder",
            width,
            "embed_tokens",
            "layers.{i}",
            num_layers,
            rotary_path="rotary_emb",
        )
        return Anatomy(width, True, tuple(blocks), tuple(attentions), tuple(vectors), (stack,))

    def _heads(self, config: Config) -> tuple[int, int, int]:
        heads = positive_int(config, "num_attention_heads")
        kv_heads = _setting(config, "num_key_value_heads", self.default_kv_heads) or heads
        if heads % kv_heads:
            raise InvalidArtefactError(
                f"num_key_value_heads {kv_heads} in config.json does not divide "
                f"num_attention_heads {heads}",
                hint="Give the folder of a complete model, as save_pretrained writes it.",
            )
        head_dim = _setting(config, "head_dim", self.default_head_dim)
        return heads, kv_heads, head_dim or divided(config, "hidden_size", "num_attention_heads")

    def _has_bias(self, config: Config, site: Site) -> bool:
        key = self.bias_keys.get(site.role.partition(".")[0])
        return site.role in self.bias_roles or (key is not None and bool(config.get(key)))


def _setting(config: Config, key: str, default: int | None) -> int | None:
    """The key's number; ``default`` where it is missing, None where it is null."""
    if key not in config:
        return default
    return None if config[key] is None else positive_int(config, key)
