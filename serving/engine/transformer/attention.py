"""Attention over packed rows (prefill) and over key/value slabs (decode).

Shapes: ``T`` tokens of a step, ``n`` rows of a length group padded to ``L``, ``R`` decode rows,
``C`` cached positions, ``h`` heads, ``d`` head width, ``I`` = h*d.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from adapters_store.families.architecture import Stack
from serving.engine.transformer.relative_bias import RelativeBiasTable

_MIN_BUCKET = 16


class _LengthGroup:
    """Rows of similar length, padded together; padding repeats a token of the same row."""

    def __init__(self, rows: Sequence[tuple[int, int]], device: torch.device) -> None:
        self.length = max(length for _, length in rows)
        self.num_rows = len(rows)
        starts = torch.tensor([start for start, _ in rows], device=device).unsqueeze(1)
        lengths = torch.tensor([length for _, length in rows], device=device).unsqueeze(1)
        positions = torch.arange(self.length, device=device).unsqueeze(0)
        self.is_token = positions < lengths
        self.gather = (starts + torch.minimum(positions, lengths - 1)).flatten()
        self.valid = self.is_token.flatten().nonzero().squeeze(1)
        self.tokens = self.gather.index_select(0, self.valid)


class PackedAttention:
    """Bidirectional self-attention of rows packed without padding; built once per step.

    Rows are attended in groups of similar length, so one long row does not pad the others.
    """

    def __init__(
        self,
        stack: Stack,
        lengths: Sequence[int],
        bias: RelativeBiasTable | None,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._stack = stack
        by_bucket: dict[int, list[tuple[int, int]]] = {}
        start = 0
        for length in lengths:
            bucket = max(_MIN_BUCKET, 1 << (length - 1).bit_length())
            by_bucket.setdefault(bucket, []).append((start, length))
            start += length
        self._groups = [_LengthGroup(rows, device) for rows in by_bucket.values()]
        self._masks = [self._mask(group, bias, dtype) for group in self._groups]

    def _mask(
        self, group: _LengthGroup, bias: RelativeBiasTable | None, dtype: torch.dtype
    ) -> Tensor | None:
        if bias is None and bool(group.is_token.all()):
            return None
        hidden = torch.zeros(group.is_token.shape, dtype=dtype, device=group.is_token.device)
        hidden.masked_fill_(~group.is_token, float("-inf"))
        mask_n11L = hidden[:, None, None, :]
        if bias is None:
            return mask_n11L
        at = torch.arange(group.length, device=hidden.device)
        bias_LLh = bias.between(at[:, None], at[None, :], group.length)
        return bias_LLh.permute(2, 0, 1).unsqueeze(0) + mask_n11L

    def __call__(self, qkv_T3I: Tensor) -> Tensor:
        """Context (T, I) of packed queries, keys and values (T, 3*I)."""
        stack = self._stack
        h, d = stack.num_heads, stack.head_dim
        out = qkv_T3I.new_empty(qkv_T3I.shape[0], h * d)
        for group, mask in zip(self._groups, self._masks, strict=True):
            n, L = group.num_rows, group.length
            padded = qkv_T3I.index_select(0, group.gather).view(n, L, 3, h, d)
            q, k, v = padded.permute(2, 0, 3, 1, 4).unbind(0)
            context = sdpa(q, k, v, attn_mask=mask, scale=stack.attention_scale)
            flat = context.transpose(1, 2).reshape(n * L, h * d)
            out.index_copy_(0, group.tokens, flat.index_select(0, group.valid))
        return out


def slab_attention(
    q_RI: Tensor, k_RhCd: Tensor, v_RhCd: Tensor, mask: Tensor | None, scale: float
) -> Tensor:
    """Context (R, I) of one query a row over its cached keys; ``mask`` adds to the scores."""
    R, h, _, d = k_RhCd.shape
    context = sdpa(q_RI.view(R, h, 1, d), k_RhCd, v_RhCd, attn_mask=mask, scale=scale)
    return context.reshape(R, h * d)
