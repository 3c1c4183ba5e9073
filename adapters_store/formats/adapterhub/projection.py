"""The two linear maps of a bottleneck: dense, or a sum of Kronecker products as in Compacter.

A parametrised hypercomplex layer has n small matrices ``rule_i`` (n, n) and n matrices ``W_i``
(in/n, out/n); its map is ``x H + b`` with ``H = sum_i kron(rule_i, W_i)``. Either may be stored as
a product of two factors, and either may be shared by every layer of the model. Source: Karimi
Mahabadi et al. 2021.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from adapters_store.formats.adapterhub.draft import Draft
from adapters_store.formats.adapterhub.recipe import Recipe, as_stored, transposed, zeros
from adapters_store.formats.inspection import TensorRef

if TYPE_CHECKING:
    import torch

Position = Literal["down", "up"]


def dense(stem: str, shape: tuple[int, int], draft: Draft) -> tuple[Recipe, Recipe]:
    """The matrix (in, out) and the bias of a linear layer, which stores (out, in)."""
    weight = draft.take(f"{stem}.weight", (shape[1], shape[0]))
    bias = draft.take(f"{stem}.bias", (shape[1],))
    return transposed(weight), as_stored(bias)


def hypercomplex(
    stem: str,
    shared_stem: str,
    position: Position,
    shape: tuple[int, int],
    options: Mapping[str, Any],
    draft: Draft,
) -> tuple[Recipe, Recipe]:
    """The matrix (in, out) and the bias of a Compacter layer.

    ``shared_stem`` is where tensors stand that all layers share.
    """
    n, rank = options["phm_dim"], options["phm_rank"]
    if n < 1 or rank < 1 or shape[0] % n or shape[1] % n:
        message = f"phm_dim {n} does not divide {shape[0]} and {shape[1]}, or phm_rank {rank} is 0"
        draft.abandon("unreadable", message, f"{draft.scope}.phm_dim")
        return zeros(shape[0] * shape[1]), zeros(shape[1])
    rules = _factors(
        shared_stem if options["shared_phm_rule"] else stem,
        "phm_rule",
        ((n, n, 1), (n, 1, n)) if options["factorized_phm_rule"] else ((n, n, n),),
        options["shared_phm_rule"],
        draft,
    )
    fan_in, fan_out = shape[0] // n, shape[1] // n
    small = _factors(
        shared_stem if options["shared_W_phm"] else stem,
        f"W_{position}" if options["shared_W_phm"] else "W",
        ((n, fan_in, rank), (n, rank, fan_out))
        if options["factorized_phm_W"]
        else ((n, fan_in, fan_out),),
        options["shared_W_phm"],
        draft,
    )
    bias = as_stored(draft.take(f"{stem}.b", (shape[1],))) if options["phm_bias"] else None
    num_rules = len(rules)

    def make(found: Sequence[torch.Tensor]) -> torch.Tensor:
        return _kronecker_sum(_product(found[:num_rules]), _product(found[num_rules:]))

    return Recipe((*rules, *small), make), bias or zeros(shape[1])


def _factors(
    stem: str,
    name: str,
    shapes: Sequence[tuple[int, int, int]],
    is_shared: bool,
    draft: Draft,
) -> tuple[TensorRef, ...]:
    """One tensor, or its left and right factor where two shapes are given."""
    names = (name,) if len(shapes) == 1 else (f"{name}_left", f"{name}_right")
    return tuple(
        draft.take(f"{stem}.{part}", shape, is_shared=is_shared)
        for part, shape in zip(names, shapes)
    )


def _product(factors: Sequence[torch.Tensor]) -> torch.Tensor:
    first = factors[0].float()
    return first if len(factors) == 1 else first @ factors[1].float()


def _kronecker_sum(rules: torch.Tensor, small: torch.Tensor) -> torch.Tensor:
    """``sum_i kron(rules[i], small[i])`` in float32."""
    import torch

    n, fan_in, fan_out = small.shape
    blocks = torch.einsum("kab,kio->aibo", rules, small)
    return blocks.reshape(n * fan_in, n * fan_out)
