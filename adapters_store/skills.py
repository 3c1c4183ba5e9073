"""Exact changes of form between a plain low-rank update, a skill of a bank and a task of one.

Legend: H heads, K skills, r rank.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from adapters_store.errors import IncompatibleError

if TYPE_CHECKING:
    import torch


def lora_as_skill(
    a: torch.Tensor, b: torch.Tensor, num_heads: int, factor: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cut ``a`` (in, r) and ``b`` (r, out) into one skill: (H, in/H, r) and (H, r, out/H).

    Mixed alone, with weight 1 in every head, the skill gives ``a`` and ``factor * b`` back;
    ``factor`` is the update's scale over the bank's. Raises IncompatibleError where the heads do
    not divide a width. Source: MHR, arXiv 2211.03831.
    """
    width_in, rank = a.shape
    width_out = b.shape[1]
    if width_in % num_heads or width_out % num_heads:
        raise IncompatibleError(
            f"{num_heads} heads do not divide the widths {width_in} and {width_out}",
            hint="Choose a number of heads that divides the widths of every site.",
        )
    a_skill = a.reshape(num_heads, width_in // num_heads, rank)
    b_skill = (factor * b).reshape(rank, num_heads, width_out // num_heads).transpose(0, 1)
    return a_skill.contiguous(), b_skill.contiguous()


def task_as_lora(
    a: torch.Tensor, b: torch.Tensor, weights: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mix a bank's ``a`` (H, K, in/H, r) and ``b`` (H, K, r, out/H) into (in, r) and (r, out).

    ``weights`` (H, K) are those after the gate. The update's scale is the bank's.
    """
    import torch

    weights = weights.to(a.dtype)
    mixed_a = torch.einsum("hk,hkdr->hdr", weights, a)
    mixed_b = torch.einsum("hk,hkrd->hrd", weights, b)
    rank = a.shape[-1]
    return mixed_a.reshape(-1, rank), mixed_b.transpose(0, 1).reshape(rank, -1)
