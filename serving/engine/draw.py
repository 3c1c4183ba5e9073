"""Drawing tokens: a random number is a function of a row's seed and position, nothing else.

A row that runs again, in another batch or after a preemption, draws the same tokens. The nucleus
needs no sorting: a token is in it when the mass of all likelier tokens is below ``top_p``, so one
drawn from the whole distribution is kept or drawn again.

Shapes: ``S`` sampled rows, ``V`` vocabulary, ``B`` blocks of neighbouring tokens.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from serving.engine.row import Row
from serving.upload import upload

_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MAX_DRAWS = 16
_BLOCK = 256
_LEAST_TEMPERATURE = torch.finfo(torch.float32).tiny


def uniform(seed: int, position: int, number: int) -> float:
    """The row's ``number``-th random number in [0, 1) at an output position (SplitMix64)."""
    return (_mix(_mix(_mix(seed) + position) + number) >> 11) / 2**53


def draw(logits_SV: Tensor, rows: Sequence[Row]) -> list[int]:
    """A token of every row by its own settings. Overwrites the float32 logits."""
    settings, device = [row.request.sampling for row in rows], logits_SV.device
    weights_SV = weigh(
        logits_SV, [one.temperature for one in settings], [one.top_k for one in settings]
    )
    sums_SB = _block_sums(weights_SV)
    limit_S = sums_SB.sum(1) * upload([one.top_p for one in settings], device, torch.float64)
    if any(one.min_p > 0 for one in settings):
        floor_S = upload([one.min_p for one in settings], device, weights_SV.dtype)
        weights_SV.mul_(weights_SV >= floor_S[:, None])
        sums_SB = _block_sums(weights_SV)
    tokens = [0] * len(rows)
    pending = list(range(len(rows)))
    for number in range(_MAX_DRAWS):
        points = upload([_point(rows[i], number) for i in pending], device, limit_S.dtype)
        some_SV = select(weights_SV, pending)
        drawn = _invert(some_SV, select(sums_SB, pending), points)
        for i, token in zip(pending, drawn.tolist(), strict=True):
            tokens[i] = token
        asked = [n for n, i in enumerate(pending) if settings[i].top_p < 1]
        pending = [pending[n] for n in asked]
        if pending:
            above_S = mass_above(select(some_SV, asked), select(drawn, asked))
            is_outside = (above_S >= select(limit_S, pending)).tolist()
            pending = [i for i, refused in zip(pending, is_outside, strict=True) if refused]
        if not pending:
            return tokens
    points = upload([_point(rows[i], _MAX_DRAWS) for i in pending], device, limit_S.dtype)
    drawn = draw_sorted(select(weights_SV, pending), select(limit_S, pending), points)
    for i, token in zip(pending, drawn.tolist(), strict=True):
        tokens[i] = token
    return tokens


def select(values_S: Tensor, indices: list[int]) -> Tensor:
    """The rows of those ascending indices; no copy where these are all."""
    if len(indices) == len(values_S):
        return values_S
    return values_S.index_select(0, upload(indices, values_S.device))


def weigh(logits_SV: Tensor, temperatures: Sequence[float], top_ks: Sequence[int]) -> Tensor:
    """The logits become weights, the likeliest token's being 1; those outside the top k zero."""
    V, device = logits_SV.shape[1], logits_SV.device
    weights_SV = logits_SV.sub_(logits_SV.amax(dim=1, keepdim=True))
    warm = [max(one, _LEAST_TEMPERATURE) for one in temperatures]
    weights_SV.div_(upload(warm, device, weights_SV.dtype)[:, None]).exp_()
    limited = [i for i, k in enumerate(top_ks) if 0 < k < V]
    if limited:
        last = upload([top_ks[i] - 1 for i in limited], device)
        most = max(top_ks[i] for i in limited)
        likeliest = select(weights_SV, limited).topk(most).values
        floor_S1 = weights_SV.new_zeros(len(weights_SV), 1)
        floor_S1.index_copy_(0, upload(limited, device), likeliest.gather(1, last[:, None]))
        weights_SV.mul_(weights_SV >= floor_S1)
    return weights_SV


def mass_above(weights_SV: Tensor, tokens_S: Tensor) -> Tensor:
    """The mass (S,) float64 of the tokens that are likelier than each row's own."""
    own_S1 = weights_SV.gather(1, tokens_S[:, None])
    return (weights_SV * (weights_SV > own_S1)).sum(dim=1).double()


def draw_sorted(weights_SV: Tensor, limit_S: Tensor, points_S: Tensor) -> Tensor:
    """Tokens (S,) of the nucleus, by sorting: for rows that were refused too often."""
    ordered, order = weights_SV.sort(dim=1, descending=True)
    before = ordered.cumsum(1, dtype=torch.float64) - ordered
    kept = ordered.masked_fill(before >= limit_S[:, None], 0.0)
    places = _invert(kept, _block_sums(kept), points_S)
    return order.gather(1, places[:, None]).squeeze(1)


def _block_sums(weights_SV: Tensor) -> Tensor:
    """Sums (S, B) float64 of ``_BLOCK`` neighbours each."""
    V = weights_SV.shape[1]
    whole = V - V % _BLOCK
    blocks = weights_SV[:, :whole].reshape(len(weights_SV), -1, _BLOCK).sum(2)
    return torch.cat([blocks, weights_SV[:, whole:].sum(1, keepdim=True)], dim=1).double()


def _invert(weights_SV: Tensor, sums_SB: Tensor, points_S: Tensor) -> Tensor:
    """The first token (S,) whose cumulated weight is above the point's share of the whole."""
    cumulated_SB = sums_SB.cumsum(1)
    target_S1 = points_S[:, None] * cumulated_SB[:, -1:]
    block_S1 = torch.searchsorted(cumulated_SB, target_S1, right=True)
    before_S1 = (cumulated_SB - sums_SB).gather(1, block_S1)
    V = weights_SV.shape[1]
    places = block_S1 * _BLOCK + torch.arange(_BLOCK, device=weights_SV.device)
    inside = weights_SV.gather(1, places.clamp(max=V - 1)).masked_fill(places >= V, 0.0)
    cumulated = inside.cumsum(1, dtype=torch.float64)
    below_end = torch.nextafter(cumulated[:, -1:], cumulated.new_zeros(()))
    rest_S1 = torch.minimum(target_S1 - before_S1, below_end)
    return (block_S1 * _BLOCK + torch.searchsorted(cumulated, rest_S1, right=True)).squeeze(1)


def _point(row: Row, number: int) -> float:
    return uniform(row.seed, row.num_output, number)


def _mix(value: int) -> int:
    value = (value + _GOLDEN) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)
