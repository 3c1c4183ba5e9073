"""The places of a backbone beyond its linear sites: where every other primitive acts.

Names are canonical, paths are dotted module or parameter paths of the Hugging Face base model. In
a sub-layer, ``x`` is the residual stream beside it, ``u`` what it reads (the norm of ``x`` where
norms stand before, else ``x``) and ``f`` what it adds, so that a pre-norm layer gives ``x + f``
and a post-norm layer ``norm(x + f)``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from adapters_store.families.architecture import RelativeBias
from adapters_store.families.site import Site


@dataclass(frozen=True, slots=True)
class Tap:
    """A value to read: the argument (index or keyword) that a module is called with.

    The value counts as the caller passes it, before any part at that module acts; rows that a
    prompt puts in are part of it.
    """

    module_path: str
    argument: int | str


@dataclass(frozen=True, slots=True)
class Block:
    """The end of a sub-layer, such as ``encoder.2.after_ffn``, where a bottleneck acts.

    The first output of the module at ``output_path`` is ``f``: the last linear map of the
    sub-layer, or the norm over it where the sub-layer's own result is normed before it is added
    (Gemma 2). ``residual`` reads ``x``; ``pre_norm_path`` is the norm whose output is ``u``, None
    where ``u`` is ``x``; ``post_norm_path`` is the norm over ``x + f``, None where norms stand
    before.
    """

    name: str
    width: int
    output_path: str
    residual: Tap
    pre_norm_path: str | None
    post_norm_path: str | None


@dataclass(frozen=True, slots=True)
class Attention:
    """One attention, such as ``decoder.0.self``, where a prefix acts; sizes are counts.

    ``module_path`` is the module that projects and attends; ``relative_bias`` is what it adds to
    its scores by distance, None where positions are not relative.
    """

    name: str
    module_path: str
    num_heads: int
    num_kv_heads: int
    head_dim: int
    relative_bias: RelativeBias | None = None


@dataclass(frozen=True, slots=True)
class Vector:
    """A named vector that a row may override: a norm's gain or bias, a linear map's bias.

    ``is_present`` is False for the bias of a linear map that has none: it counts as zeros.
    """

    name: str
    parameter_path: str
    size: int
    is_present: bool = True


@dataclass(frozen=True, slots=True)
class Input:
    """The input of a stack, where a prompt acts: rows of ``width`` before the first layer.

    ``embedding_path`` is the module that is called for the token rows (for images and sounds, for
    the rows of all patches); ``layer_path`` the layers' path with ``{i}`` for the index, whose
    first argument is the stream that deep prompts enter. ``stack_path`` is the module that is
    called with the tokens or their embeddings, empty for the whole backbone. ``position_path`` is
    the table of learned positions that the embedding adds, ``rotary_path`` the module that turns
    ``position_ids`` into rotary angles; both are None where positions are relative, or a part of
    the embedding itself.
    """

    name: Literal["encoder", "decoder"]
    width: int
    embedding_path: str
    layer_path: str
    num_layers: int
    stack_path: str = ""
    position_path: str | None = None
    rotary_path: str | None = None


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Every named place of a backbone but its linear sites.

    ``width`` is that of the last hidden state, which heads read. ``pooler_path`` is the backbone's
    own pooler (dense and tanh over the first token) where it has one. ``can_generate`` is True
    where the model writes text.
    """

    width: int
    can_generate: bool
    blocks: tuple[Block, ...]
    attentions: tuple[Attention, ...]
    vectors: tuple[Vector, ...]
    inputs: tuple[Input, ...]
    pooler_path: str | None = None


NormKind = Literal["rms", "layer"]


def norm_vectors(name: str, path: str, width: int, kind: NormKind) -> tuple[Vector, ...]:
    """The vectors of a norm module: ``{name}.gain`` and, for a layer norm, ``{name}.bias``."""
    gain = Vector(f"{name}.gain", f"{path}.weight", width)
    bias = Vector(f"{name}.bias", f"{path}.bias", width)
    return (gain, bias) if kind == "layer" else (gain,)


def bias_vectors(sites: Iterable[Site], *, is_present: bool) -> tuple[Vector, ...]:
    """``{site}.bias`` for every linear site; ``is_present`` says whether the backbone has them."""
    return tuple(
        Vector(f"{site.name}.bias", f"{site.module_path}.bias", site.out_features, is_present)
        for site in sites
    )
