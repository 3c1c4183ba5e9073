"""A tower of transformer layers that executes its record.

The stack knows norms, positions, residuals and the order of sub-layers. What attention reads
(packed rows, cached slabs) is the business of the :class:`Context` that the caller passes.

Shapes: ``T`` flat tokens (prefill) or rows (decode), ``D`` hidden width, ``h`` query heads, ``k``
key-value heads, ``d`` head width, ``E`` = (h + 2 k) d: queries, keys and values side by side.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import gelu, relu, silu

from adapters_store.families.architecture import Activation, Rotary
from adapters_store.families.architecture import Stack as StackRecord
from serving.engine.transformer.embedding import InputEmbedding
from serving.engine.transformer.linear_site import LinearSite
from serving.engine.transformer.norm import Normalisation
from serving.engine.transformer.rotary import Angles, RotaryPositions, turn
from serving.engine.transformer.sight import Sight
from serving.primitives.plan import Plan


def _gelu_tanh(x: Tensor) -> Tensor:
    return gelu(x, approximate="tanh")


ACTIVATIONS: dict[Activation, Callable[[Tensor], Tensor]] = {
    "relu": relu,
    "gelu": gelu,
    "gelu_tanh": _gelu_tanh,
    "silu": silu,
}


class Context(Protocol):
    """Where a pass finds its keys and values."""

    def attend_self(self, layer: int, qkv_TE: Tensor) -> Tensor:
        """Self-attention context (T, h*d)."""

    def attend_cross(self, layer: int, q_TI: Tensor) -> Tensor:
        """Cross-attention context (T, h*d)."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of one layer; what its stack does not have is None."""

    self_norm: Normalisation
    self_qkv: LinearSite
    self_o: LinearSite
    cross_norm: Normalisation | None
    cross_q: LinearSite | None
    cross_kv: LinearSite | None
    cross_o: LinearSite | None
    ffn_norm: Normalisation
    ffn_in: LinearSite
    ffn_out: LinearSite
    q_norm: Normalisation | None = None
    k_norm: Normalisation | None = None
    self_post_norm: Normalisation | None = None
    ffn_post_norm: Normalisation | None = None


@dataclass(frozen=True, slots=True)
class Wanted:
    """The rows (n,) int64 whose final states are asked for, and the plan of these rows alone."""

    index: Tensor
    plan: Plan[Any] | None


class Stack:
    """Runs the layers of one tower; ``sights`` has one entry a layer."""

    def __init__(
        self,
        record: StackRecord,
        embedding: InputEmbedding,
        layers: Sequence[Layer],
        final_norm: Normalisation | None,
        sights: Sequence[Sight],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self.record = record
        self.layers = tuple(layers)
        self.sights = tuple(sights)
        self._embedding = embedding
        self._final_norm = final_norm
        self._is_pre = record.norm.placement == "pre"
        self._activation = ACTIVATIONS[record.activation]
        reaches = [record.reach(i) for i in range(record.num_layers)]
        self._rotaries = [reach.rotary for reach in reaches]
        self._positions = {
            rotary: RotaryPositions(rotary, record.head_dim, dtype, device)
            for rotary in self._rotaries
            if rotary is not None
        }

    @property
    def query_width(self) -> int:
        """h * d."""
        return self.record.num_heads * self.record.head_dim

    def forward(
        self,
        ids_T: Tensor,
        positions_T: Tensor,
        plan: Plan[Any] | None,
        context: Context,
        rotary_T: Tensor | None = None,
        wanted: Wanted | None = None,
    ) -> Tensor:
        """Last hidden states (T, D) of token ids and positions (T,) int64.

        ``rotary_T`` are the positions of rotary angles, where they are not those of the table.
        Where only some states are ``wanted``, these (n, D) are returned.
        """
        x, angles = self.enter(ids_T, positions_T, plan, rotary_T)
        return self.run(x, angles, plan, context, range(len(self.layers)), wanted)

    def enter(
        self,
        ids_T: Tensor,
        positions_T: Tensor,
        plan: Plan[Any] | None,
        rotary_T: Tensor | None = None,
    ) -> tuple[Tensor, Mapping[Rotary, Angles]]:
        """What the first layer reads (T, D), and the angles of all layers; as :meth:`forward`."""
        x = self._embedding(ids_T, positions_T, plan)
        turning_T = positions_T if rotary_T is None else rotary_T
        return x, {rotary: found.angles(turning_T) for rotary, found in self._positions.items()}

    def run(
        self,
        x: Tensor,
        angles: Mapping[Rotary, Angles],
        plan: Plan[Any] | None,
        context: Context,
        layers: range,
        wanted: Wanted | None = None,
    ) -> Tensor:
        """Run some layers on what the one before them gave; the last one's states are final.

        Where only some final states are ``wanted``, the last layer goes on with these once all
        rows have their keys and values: nothing reads what it would add to the others.
        """
        for number in layers:
            layer = self.layers[number]
            last = wanted if number == len(self.layers) - 1 else None
            if plan is not None:
                plan.enter(number, x)
            rotary = self._rotaries[number]
            turned = None if rotary is None else angles[rotary]
            x = self._self_attention(number, layer, x, plan, context, turned, last)
            if last is not None:
                plan = last.plan
            if layer.cross_q is not None:
                x = self._cross_attention(number, layer, x, plan, context)
            x = self._feed_forward(number, layer, x, plan)
        if layers.stop < len(self.layers) or self._final_norm is None:
            return x
        return self._final_norm(x, plan)

    def _self_attention(
        self,
        number: int,
        layer: Layer,
        x: Tensor,
        plan: Plan[Any] | None,
        context: Context,
        angles: Angles | None,
        wanted: Wanted | None,
    ) -> Tensor:
        u = layer.self_norm(x, plan) if self._is_pre else x
        qkv = layer.self_qkv(u, plan)
        if layer.q_norm is not None or angles is not None:
            self._place(layer, qkv, plan, angles)
        c = context.attend_self(number, qkv)
        if wanted is not None:
            plan = wanted.plan
            c, x, u = (states.index_select(0, wanted.index) for states in (c, x, u))
        f = layer.self_o(c, plan)
        norms = layer.self_norm, layer.self_post_norm
        return self._add(f"{number}.after_self", norms, x, u, f, plan)

    def _place(
        self, layer: Layer, qkv_TE: Tensor, plan: Plan[Any] | None, angles: Angles | None
    ) -> None:
        """Norm each head's queries and keys, and turn them by their positions, in place."""
        h, k, d = self.record.num_heads, self.record.kv_heads, self.record.head_dim
        qk_Thd = qkv_TE[:, : (h + k) * d].view(-1, h + k, d)
        if layer.q_norm is not None and layer.k_norm is not None:
            qk_Thd[:, :h] = layer.q_norm(qk_Thd[:, :h], plan)
            qk_Thd[:, h:] = layer.k_norm(qk_Thd[:, h:], plan)
        if angles is not None:
            turn(qk_Thd, angles)

    def _cross_attention(
        self, number: int, layer: Layer, x: Tensor, plan: Plan[Any] | None, context: Context
    ) -> Tensor:
        assert layer.cross_norm is not None
        assert layer.cross_q is not None
        assert layer.cross_o is not None
        u = layer.cross_norm(x, plan) if self._is_pre else x
        f = layer.cross_o(context.attend_cross(number, layer.cross_q(u, plan)), plan)
        norms = layer.cross_norm, None
        return self._add(f"{number}.after_cross", norms, x, u, f, plan)

    def _feed_forward(self, number: int, layer: Layer, x: Tensor, plan: Plan[Any] | None) -> Tensor:
        u = layer.ffn_norm(x, plan) if self._is_pre else x
        inner = layer.ffn_in(u, plan)
        if self.record.is_gated:
            gate, up = inner.chunk(2, dim=-1)
            inner = self._activation(gate).mul_(up)
        else:
            inner = self._activation(inner)
        f = layer.ffn_out(inner, plan)
        norms = layer.ffn_norm, layer.ffn_post_norm
        return self._add(f"{number}.after_ffn", norms, x, u, f, plan)

    def _add(
        self,
        block: str,
        norms: tuple[Normalisation, Normalisation | None],
        x: Tensor,
        u: Tensor,
        f: Tensor,
        plan: Plan[Any] | None,
    ) -> Tensor:
        """``x + f`` with the rows' bottlenecks at ``block``, normed where norms stand behind.

        ``norms`` are that of the sub-layer and, where there is one, that of ``f`` itself.

        The sum is never a part of the product before it: a row's bits would then depend on
        whether a mate has an effect on ``f``.
        """
        norm, post_norm = norms
        if post_norm is not None:
            f = post_norm(f, plan)
        if plan is not None and plan.has_blocks:
            plan.after(f"{self.record.name}.{block}", x, u, f, None if self._is_pre else norm)
        y = f.add_(x)
        return y if self._is_pre else norm(y, plan)
