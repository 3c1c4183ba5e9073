"""What a runner must know of a backbone beyond its linear sites, as plain data.

A family describes its transformer with these records; the serving runner executes the record and
never asks which family it came from. Paths are dotted module or parameter paths of the Hugging
Face model; ``{i}`` stands for the layer's index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Activation = Literal["relu", "gelu", "gelu_tanh", "silu"]


@dataclass(frozen=True, slots=True)
class Norm:
    """``rms`` has a gain only; ``layer`` has gain and bias. ``pre`` acts before the sub-layer.

    The norm multiplies by ``gain_offset`` plus the stored gain (Gemma stores gains around 0).
    """

    kind: Literal["rms", "layer"]
    eps: float
    placement: Literal["pre", "post"]
    gain_offset: float = 0.0


@dataclass(frozen=True, slots=True)
class RelativeBias:
    """T5's bucketed attention bias; ``path`` is its table (buckets, heads).

    With ``{i}`` in its path every layer has a table of its own (UMT5), else all share one.
    """

    path: str
    num_buckets: int
    max_distance: int
    is_bidirectional: bool


@dataclass(frozen=True, slots=True)
class Rotary:
    """Rotary positions (RoFormer, arXiv 2104.09864): a pair's angle is position * frequency.

    Frequencies are ``theta ** (-2 i / head_dim)``. ``linear`` divides them by ``factor``;
    ``llama3`` divides those whose wavelength is above ``original_positions / low_factor``, keeps
    those below ``original_positions / high_factor``, and goes over smoothly between them.
    """

    theta: float
    scaling: Literal["linear", "llama3"] | None = None
    factor: float = 1.0
    low_factor: float = 1.0
    high_factor: float = 1.0
    original_positions: int = 0


@dataclass(frozen=True, slots=True)
class Reach:
    """What one layer's self-attention sees: a token sees itself and ``window - 1`` before it.

    ``window`` is None where it sees all. ``rotary`` is None where positions are not rotary.
    """

    window: int | None = None
    rotary: Rotary | None = None


@dataclass(frozen=True, slots=True)
class Embedding:
    """Input embedding: token table, optional position and type tables, optional norm after.

    The first token is at row ``position_offset`` of the position table. ``scale`` multiplies the
    token's vector alone.
    """

    token_path: str
    position_path: str | None = None
    type_path: str | None = None
    norm_path: str | None = None
    position_offset: int = 0
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class Stack:
    """One tower of identical layers; sub-layers run in the order self, cross, ffn.

    ``num_kv_heads`` 0 means one key-value head for every query head. ``reaches`` has one entry a
    layer, or none where every layer sees all and positions are not rotary. ``softcap`` bounds
    attention scores by ``softcap * tanh(score / softcap)``. ``*_post_norm_path`` norms what a
    sub-layer adds; ``q_norm_path`` and ``k_norm_path`` norm each head.
    """

    name: Literal["encoder", "decoder"]
    num_layers: int
    hidden_size: int
    num_heads: int
    head_dim: int
    attention_scale: float
    is_causal: bool
    has_cross: bool
    is_gated: bool
    activation: Activation
    norm: Norm
    embedding: Embedding
    relative_bias: RelativeBias | None
    self_norm_path: str
    cross_norm_path: str | None
    ffn_norm_path: str
    final_norm_path: str | None
    num_kv_heads: int = 0
    reaches: tuple[Reach, ...] = ()
    softcap: float | None = None
    self_post_norm_path: str | None = None
    ffn_post_norm_path: str | None = None
    q_norm_path: str | None = None
    k_norm_path: str | None = None

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_kv_heads or self.num_heads

    def reach(self, layer: int) -> Reach:
        """What the self-attention of that layer sees."""
        return self.reaches[layer] if self.reaches else Reach()


@dataclass(frozen=True, slots=True)
class Architecture:
    """A whole backbone. Paths are relative to the base model, ``lm_head_path`` to the whole one.

    ``lm_head_path`` is the output matrix (vocab, hidden) or None; ``lm_head_scale`` multiplies
    the last hidden state first (tied T5: hidden_size ** -0.5); ``lm_bias_path`` is added to the
    logits and ``logit_softcap`` bounds them. ``max_positions`` is None where positions are
    relative. Generation ends at any of ``eos_token_ids``; ``decoder_start_token_id`` begins it
    where a decoder reads an encoder. ``has_transposed_linears``: the checkpoint keeps weights of
    linear maps as (in, out). Token ids are the model's own.
    """

    stacks: tuple[Stack, ...]
    vocab_size: int
    lm_head_path: str | None
    lm_head_scale: float
    max_positions: int | None
    pad_token_id: int
    eos_token_ids: tuple[int, ...]
    decoder_start_token_id: int | None
    lm_bias_path: str | None = None
    logit_softcap: float | None = None
    has_transposed_linears: bool = False

    @property
    def is_encoder_decoder(self) -> bool:
        """True where a decoder with cross attention reads an encoder."""
        return any(stack.has_cross for stack in self.stacks)

    @property
    def is_decoder_only(self) -> bool:
        """True where one causal stack reads the input and writes on."""
        return len(self.stacks) == 1 and self.stacks[0].is_causal

    @property
    def can_generate(self) -> bool:
        """True where there is an output matrix."""
        return self.lm_head_path is not None

    def stack(self, name: str) -> Stack:
        """The stack of that name; raises KeyError with the known names."""
        for stack in self.stacks:
            if stack.name == name:
                return stack
        raise KeyError(f"no stack {name!r}; known: {[s.name for s in self.stacks]}")
