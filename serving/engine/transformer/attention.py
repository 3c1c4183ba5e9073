"""Attention over packed rows (prefill) and over key/value slabs (decode).

Shapes: ``T`` tokens of a step, ``n`` rows padded to ``L``, ``Q`` queries and ``C`` keys of a row,
``h`` query heads, ``k`` key-value heads, ``d`` head width, ``E`` = (h + 2 k) d.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention as sdpa

from adapters_store.families.architecture import Stack as StackRecord
from serving.engine.transformer.sight import Sight
from serving.engine.transformer.stack import Stack

_MIN_BUCKET = 16


def attend(
    record: StackRecord, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, *, is_causal: bool
) -> Tensor:
    """Context (n, h, Q, d) of queries (n, h, Q, d) over keys and values (n, k, C, d).

    ``mask`` is added to the scores; ``is_causal`` hides later keys where Q = C instead. A record
    with a ``softcap`` needs the mask.
    """
    is_grouped = q.shape[1] != k.shape[1]
    if record.softcap is None:
        scale = record.attention_scale
        return sdpa(
            q, k, v, attn_mask=mask, is_causal=is_causal, scale=scale, enable_gqa=is_grouped
        )
    assert mask is not None
    if is_grouped:
        share = q.shape[1] // k.shape[1]
        k, v = k.repeat_interleave(share, dim=1), v.repeat_interleave(share, dim=1)
    scores = torch.matmul(q * record.attention_scale, k.transpose(-1, -2))
    scores = (scores / record.softcap).tanh_().mul_(record.softcap).add_(mask)
    return torch.matmul(scores.softmax(dim=-1, dtype=torch.float32).to(v.dtype), v)


class _LengthGroup:
    """Rows of similar length, padded together; padding repeats a token of the same row."""

    def __init__(self, rows: Sequence[tuple[int, int]], device: torch.device) -> None:
        self.length = max(length for _, length in rows)
        self.num_rows = len(rows)
        starts = torch.tensor([start for start, _ in rows], device=device).unsqueeze(1)
        lengths = torch.tensor([length for _, length in rows], device=device).unsqueeze(1)
        self.positions = torch.arange(self.length, device=device)
        self.is_token = self.positions < lengths
        self.gather = (starts + torch.minimum(self.positions, lengths - 1)).flatten()
        self.valid = self.is_token.flatten().nonzero().squeeze(1)
        self.tokens = self.gather.index_select(0, self.valid)


class PackedAttention:
    """Self-attention of rows packed without padding, each from its first token; made once a step.

    Rows are attended in groups of similar length, so one long row does not pad the others.
    ``rows`` are (first token, number of tokens) in the packed step.
    """

    def __init__(
        self,
        stack: Stack,
        rows: Sequence[tuple[int, int]],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._stack = stack
        self._dtype = dtype
        by_bucket: dict[int, list[tuple[int, int]]] = {}
        for start, length in rows:
            bucket = max(_MIN_BUCKET, 1 << (length - 1).bit_length())
            by_bucket.setdefault(bucket, []).append((start, length))
        self._groups = [_LengthGroup(found, device) for found in by_bucket.values()]
        self._masks = [
            {sight: self._mask(group, sight) for sight in dict.fromkeys(stack.sights)}
            for group in self._groups
        ]

    def _mask(self, group: _LengthGroup, sight: Sight) -> Tensor | None:
        record, at = self._stack.record, group.positions
        is_plain = sight.is_plain(group.length) and record.softcap is None
        if is_plain and (record.is_causal or bool(group.is_token.all())):
            return None
        mask = sight.mask(at.unsqueeze(0), at, group.length, self._dtype)
        if record.is_causal:
            return mask
        return mask.masked_fill(~group.is_token[:, None, None, :], float("-inf"))

    def __call__(self, layer: int, qkv_TE: Tensor, out: Tensor) -> None:
        """Write the rows' contexts to their tokens of ``out`` (T, h*d)."""
        record, sight = self._stack.record, self._stack.sights[layer]
        h, k, d = record.num_heads, record.kv_heads, record.head_dim
        for group, masks in zip(self._groups, self._masks, strict=True):
            n, L = group.num_rows, group.length
            mask = masks[sight]
            padded = qkv_TE.index_select(0, group.gather).view(n, L, h + 2 * k, d).transpose(1, 2)
            query, key, value = torch.split(padded, [h, k, k], dim=1)
            is_causal = record.is_causal and mask is None
            context = attend(record, query, key, value, mask, is_causal=is_causal)
            flat = context.transpose(1, 2).reshape(n * L, h * d)
            out.index_copy_(0, group.tokens, flat.index_select(0, group.valid))


def slab_attention(
    record: StackRecord, q_nI: Tensor, k_nkCd: Tensor, v_nkCd: Tensor, mask: Tensor | None
) -> Tensor:
    """Context (n, h*d) of one query a row over its cached keys; ``mask`` adds to the scores.

    Query heads that share keys are attended as one head's queries, so that no key is copied.
    ``mask`` is (n, 1, 1, C), or (n, h, 1, C) where no heads share keys.
    """
    n, k, _, d = k_nkCd.shape
    context = attend(record, q_nI.view(n, k, -1, d), k_nkCd, v_nkCd, mask, is_causal=False)
    return context.reshape(n, -1)
