"""A tower of transformer layers that executes its record.

The stack knows norms, residuals and the order of sub-layers. What attention reads (packed rows,
cached slabs) is the business of the :class:`Context` that the caller passes.

Shapes: ``T`` flat tokens (prefill) or rows (decode), ``D`` hidden width, ``I`` attention width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor
from torch.nn.functional import gelu, relu, silu

from adapters_store.families.architecture import Activation
from adapters_store.families.architecture import Stack as StackRecord
from serving.engine.transformer.embedding import InputEmbedding
from serving.engine.transformer.linear_site import LinearSite
from serving.engine.transformer.norm import Normalisation
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

    def attend_self(self, layer: int, qkv_T3I: Tensor) -> Tensor:
        """Self-attention context (T, I)."""

    def attend_cross(self, layer: int, q_TI: Tensor) -> Tensor:
        """Cross-attention context (T, I)."""


@dataclass(frozen=True, slots=True)
class Layer:
    """Weights of one layer; cross sites are None in a stack without cross attention."""

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


class Stack:
    """Runs the layers of one tower."""

    def __init__(
        self,
        record: StackRecord,
        embedding: InputEmbedding,
        layers: Sequence[Layer],
        final_norm: Normalisation | None,
    ) -> None:
        self.record = record
        self.layers = tuple(layers)
        self._embedding = embedding
        self._final_norm = final_norm
        self._is_pre = record.norm.placement == "pre"
        self._activation = ACTIVATIONS[record.activation]

    def forward(
        self, ids_T: Tensor, positions_T: Tensor, plan: Plan[Any] | None, context: Context
    ) -> Tensor:
        """Last hidden states (T, D) of token ids and positions (T,) int64."""
        x = self._embedding(ids_T, positions_T, plan)
        for number, layer in enumerate(self.layers):
            x = self._self_attention(number, layer, x, plan, context)
            if layer.cross_q is not None:
                x = self._cross_attention(number, layer, x, plan, context)
            x = self._feed_forward(number, layer, x, plan)
        return x if self._final_norm is None else self._final_norm(x, plan)

    def _self_attention(
        self, number: int, layer: Layer, x: Tensor, plan: Plan[Any] | None, context: Context
    ) -> Tensor:
        u = layer.self_norm(x, plan) if self._is_pre else x
        f = layer.self_o(context.attend_self(number, layer.self_qkv(u, plan)), plan)
        return self._add(f"{number}.after_self", layer.self_norm, x, u, f, plan)

    def _cross_attention(
        self, number: int, layer: Layer, x: Tensor, plan: Plan[Any] | None, context: Context
    ) -> Tensor:
        assert layer.cross_norm is not None
        assert layer.cross_q is not None
        assert layer.cross_o is not None
        u = layer.cross_norm(x, plan) if self._is_pre else x
        f = layer.cross_o(context.attend_cross(number, layer.cross_q(u, plan)), plan)
        return self._add(f"{number}.after_cross", layer.cross_norm, x, u, f, plan)

    def _feed_forward(self, number: int, layer: Layer, x: Tensor, plan: Plan[Any] | None) -> Tensor:
        u = layer.ffn_norm(x, plan) if self._is_pre else x
        inner = layer.ffn_in(u, plan)
        if self.record.is_gated:
            gate, up = inner.chunk(2, dim=-1)
            inner = self._activation(gate) * up
        else:
            inner = self._activation(inner)
        f = layer.ffn_out(inner, plan)
        return self._add(f"{number}.after_ffn", layer.ffn_norm, x, u, f, plan)

    def _add(
        self,
        block: str,
        norm: Normalisation,
        x: Tensor,
        u: Tensor,
        f: Tensor,
        plan: Plan[Any] | None,
    ) -> Tensor:
        """``x + f`` with the rows' bottlenecks at ``block``, normed where norms stand behind.

        The sum is never a part of the product before it: a row's bits would then depend on
        whether a mate has an effect on ``f``.
        """
        if plan is not None and plan.has_blocks:
            plan.after(f"{self.record.name}.{block}", x, u, f, None if self._is_pre else norm)
        y = f.add_(x)
        return y if self._is_pre else norm(y, plan)
