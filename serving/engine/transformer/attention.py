"""Attention over packed rows (prefill) and over key/value slabs (decode).

Shapes: ``T`` tokens of a step, ``n`` rows padded to ``L``, ``Q`` queries and ``C`` keys of a row,
``h`` query heads, ``k`` key-value heads, ``d`` head width, ``E`` = (h + 2 k) d.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.nn.functional import pad
from torch.nn.functional import scaled_dot_product_attention as sdpa

from adapters_store.families.architecture import Stack as StackRecord
from serving.engine.transformer.sight import Sight
from serving.engine.transformer.stack import Stack
from serving.primitives.bags import Bags
from serving.primitives.prefix import NO_FRONT, Front, Prefix
from serving.upload import upload

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


def layer_masks(
    sights: Sequence[Sight],
    prefix: Prefix | None,
    mask_of: Callable[[Sight, Front], Tensor | None],
) -> list[Tensor | None]:
    """The mask of every layer behind a prefix, one tensor for layers that see alike."""
    made: dict[tuple[Sight, Front], Tensor | None] = {}
    masks = []
    for layer, sight in enumerate(sights):
        front = NO_FRONT if prefix is None else prefix.front(layer)
        if (sight, front) not in made:
            made[sight, front] = mask_of(sight, front)
        masks.append(made[sight, front])
    return masks


def front_mask(
    sight: Sight, indices_Q: Tensor, num_keys: int, front: Front, dtype: torch.dtype
) -> Tensor:
    """What is added to scores of queries at ``indices_Q`` over a prefix's rows and own keys."""
    num_front, length = front.num_rows, front.num_rows + num_keys
    queries = (indices_Q + num_front).unsqueeze(0)
    keys = torch.arange(length, device=indices_Q.device)
    counted = None if front.is_shifted else indices_Q.unsqueeze(0)
    return sight.mask(queries, keys, length, dtype, num_front=num_front, bias_queries=counted)


class _LengthGroup:
    """Rows of similar length, padded together; padding repeats a token of the same row."""

    def __init__(self, rows: Sequence[tuple[int, int]], device: torch.device) -> None:
        num_tokens = sum(length for _, length in rows)
        self.length = max(length for _, length in rows)
        self.num_rows = len(rows)
        starts = upload([start for start, _ in rows], device).unsqueeze(1)
        lengths = upload([length for _, length in rows], device).unsqueeze(1)
        self.positions = torch.arange(self.length, device=device)
        self.is_token = self.positions < lengths
        self.gather = (starts + torch.minimum(self.positions, lengths - 1)).flatten()
        self.is_full = num_tokens == self.num_rows * self.length
        is_token = self.is_token.flatten()
        self.valid = torch.nonzero_static(is_token, size=num_tokens).squeeze(1)
        self.tokens = self.gather.index_select(0, self.valid)


class PackedAttention:
    """Self-attention of rows packed without padding, each from its first token; made once a step.

    Rows are attended in groups of similar length, so one long row does not pad the others.
    ``rows`` are (first token, number of tokens, prefix or None) in the packed step. Rows that share
    a prefix are attended together.
    """

    def __init__(
        self,
        stack: Stack,
        rows: Sequence[tuple[int, int, Prefix | None]],
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        self._stack = stack
        self._dtype = dtype
        by_bucket: dict[tuple[int, int], list[tuple[int, int]]] = {}
        prefixes: dict[int, Prefix | None] = {}
        for start, length, prefix in rows:
            bucket = max(_MIN_BUCKET, 1 << (length - 1).bit_length())
            by_bucket.setdefault((bucket, id(prefix)), []).append((start, length))
            prefixes[id(prefix)] = prefix
        self._groups = [
            (_LengthGroup(found, device), prefixes[key]) for (_, key), found in by_bucket.items()
        ]
        self._masks = [
            layer_masks(stack.sights, prefix, partial(self._mask, group))
            for group, prefix in self._groups
        ]

    def _mask(self, group: _LengthGroup, sight: Sight, front: Front) -> Tensor | None:
        record = self._stack.record
        is_plain = sight.is_plain(group.length) and record.softcap is None
        has_rectangle = record.is_causal and front.num_rows > 0
        if is_plain and not has_rectangle and (record.is_causal or group.is_full):
            return None
        mask = front_mask(sight, group.positions, group.length, front, self._dtype)
        if record.is_causal:
            return mask
        is_seen = pad(group.is_token, (front.num_rows, 0), value=True)
        return mask.masked_fill(~is_seen[:, None, None, :], float("-inf"))

    def __call__(self, layer: int, qkv_TE: Tensor, out: Tensor) -> None:
        """Write the rows' contexts to their tokens of ``out`` (T, h*d)."""
        record = self._stack.record
        h, k, d = record.num_heads, record.kv_heads, record.head_dim
        for (group, prefix), masks in zip(self._groups, self._masks, strict=True):
            n, L, mask = group.num_rows, group.length, masks[layer]
            padded = qkv_TE.index_select(0, group.gather).view(n, L, h + 2 * k, d).transpose(1, 2)
            query, key, value = torch.split(padded, [h, k, k], dim=1)
            if prefix is not None and layer in prefix.rows:
                front = prefix.rows[layer].view(-1, 2 * k, d).transpose(0, 1).expand(n, -1, -1, -1)
                key = torch.cat([front[:, :k], key], dim=2)
                value = torch.cat([front[:, k:], value], dim=2)
            is_causal = record.is_causal and mask is None
            context = attend(record, query, key, value, mask, is_causal=is_causal)
            flat = context.transpose(1, 2).reshape(n * L, h * d)
            out.index_copy_(0, group.tokens, flat.index_select(0, group.valid))


@dataclass(frozen=True, slots=True)
class Tables:
    """Transposed keys (N*k*d, C) and values (N*k*P, d) of the rows of a slab, at one layer.

    The bags, one for each row and query head, sum its own keys and values.
    """

    keys: Tensor
    values: Tensor
    key_bags: Bags
    value_bags: Bags


def table_attention(
    record: StackRecord, q_nI: Tensor, tables: Tables, mask: Tensor | None
) -> Tensor:
    """What :func:`slab_attention` computes, as two weighted sums of rows of tables.

    A row's bits do not depend on its mates, nor on how many columns are masked behind its own.
    """
    n, k = q_nI.shape[0], record.kv_heads
    scores = tables.key_bags.sums(tables.keys, q_nI * record.attention_scale)
    if record.softcap is not None:
        scores = (scores / record.softcap).tanh_().mul_(record.softcap)
    if mask is not None:
        scores.view(n, k, record.num_heads // k, -1).add_(mask)
    return tables.value_bags.sums(tables.values, scores.softmax(dim=-1)).view(n, -1)


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
