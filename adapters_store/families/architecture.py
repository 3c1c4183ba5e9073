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
    """``rms`` has a gain only; ``layer`` has gain and bias. ``pre`` acts before the sub-layer."""

    kind: Literal["rms", "layer"]
    eps: float
    placement: Literal["pre", "post"]


@dataclass(frozen=True, slots=True)
class RelativeBias:
    """T5's bucketed attention bias; ``path`` is its table (buckets, heads)."""

    path: str
    num_buckets: int
    max_distance: int
    is_bidirectional: bool


@dataclass(frozen=True, slots=True)
class Embedding:
    """Input embedding: token table, optional position and type tables, optional norm after.

    The first token is at row ``position_offset`` of the position table.
    """

    token_path: str
    position_path: str | None = None
    type_path: str | None = None
    norm_path: str | None = None
    position_offset: int = 0


@dataclass(frozen=True, slots=True)
class Stack:
    """One tower of identical layers; sub-layers run in the order self, cross, ffn."""

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


@dataclass(frozen=True, slots=True)
class Architecture:
    """A whole backbone. ``lm_head_path`` is the output matrix (vocab, hidden) or None.

    ``lm_head_scale`` multiplies the last hidden state first (tied T5: hidden_size ** -0.5).
    ``max_positions`` is None where positions are relative. Token ids are the model's own.
    """

    stacks: tuple[Stack, ...]
    vocab_size: int
    lm_head_path: str | None
    lm_head_scale: float
    max_positions: int | None
    pad_token_id: int
    eos_token_id: int | None
    decoder_start_token_id: int | None

    @property
    def is_encoder_decoder(self) -> bool:
        """True where a decoder with cross attention reads an encoder."""
        return any(stack.has_cross for stack in self.stacks)

    def stack(self, name: str) -> Stack:
        """The stack of that name; raises KeyError with the known names."""
        for stack in self.stacks:
            if stack.name == name:
                return stack
        raise KeyError(f"no stack {name!r}; known: {[s.name for s in self.stacks]}")
