"""Bias, penalties and masks: what a row's settings do to its logits before a token is chosen.

Every adjustment is one gather and one scatter for all rows that ask for it.

Shapes: ``R`` rows, ``V`` vocabulary, ``N`` touched places of the flat (R * V) logits.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import torch
from torch import Tensor

from serving.engine.masks import mask
from serving.engine.row import Row
from serving.upload import upload

_NEVER = float("-inf")


def is_adjusted(row: Row) -> bool:
    """True when the row's next logits are not taken as they are."""
    sampling = row.request.sampling
    has_own = bool(sampling.logit_bias or sampling.allowed_token_ids or row.seen is not None)
    return has_own or row.num_output < sampling.min_tokens or row.has_masks


def adjust(logits_RV: Tensor, rows: Sequence[Row]) -> None:
    """Change float32 logits in place: bias, penalties, then masks of tokens not allowed now.

    Repetition as in Keskar et al. 2019 (CTRL) and transformers, frequency and presence as in
    OpenAI's API, their order as in vLLM; the masks are those of transformers. A token that is
    forced has the logit 0.
    """
    V = logits_RV.shape[1]
    flat_N = logits_RV.view(-1)
    _add_bias(flat_N, V, rows)
    _penalise(flat_N, V, rows)
    for i, row in enumerate(rows):
        if allowed := row.request.sampling.allowed_token_ids:
            _keep_only(logits_RV[i], allowed)
    ends = [
        i * V + end
        for i, row in enumerate(rows)
        if row.num_output < row.request.sampling.min_tokens
        for end in row.ends
    ]
    if ends:
        flat_N.index_fill_(0, upload(ends, flat_N.device), _NEVER)
    for i, row in enumerate(rows):
        if row.has_masks:
            mask(logits_RV[i], row)


def _add_bias(flat_N: Tensor, V: int, rows: Sequence[Row]) -> None:
    biased = [(i, row.request.sampling.logit_bias) for i, row in enumerate(rows)]
    places = [i * V + token for i, bias in biased for token, _ in bias]
    if places:
        values = [value for _, bias in biased for _, value in bias]
        at = upload(places, flat_N.device)
        flat_N.index_add_(0, at, upload(values, flat_N.device, flat_N.dtype))


def _penalise(flat_N: Tensor, V: int, rows: Sequence[Row]) -> None:
    tokens, counts, lengths = array("q"), array("f"), []
    firsts, repetitions, frequencies, presences = [], [], [], []
    for i, row in enumerate(rows):
        if row.seen is not None and row.seen.tokens:
            tokens.extend(row.seen.tokens)
            counts.extend(row.seen.counts)
            lengths.append(len(row.seen.tokens))
            sampling = row.request.sampling
            firsts.append(i * V)
            repetitions.append(sampling.repetition_penalty)
            frequencies.append(sampling.frequency_penalty)
            presences.append(sampling.presence_penalty)
    if not lengths:
        return
    device = flat_N.device
    host = torch.device("cpu")
    per_row = torch.tensor(lengths, device=host)
    first_N = torch.tensor(firsts, device=host).repeat_interleave(per_row)
    places_N = (torch.frombuffer(tokens, dtype=torch.int64) + first_N).to(device)
    counts_N = torch.frombuffer(counts, dtype=torch.float32).to(device)
    settings = torch.tensor([repetitions, frequencies, presences], device=host)
    repetition_N, frequency_N, presence_N = settings.repeat_interleave(per_row, 1).to(device)
    values_N = flat_N[places_N]
    values_N = torch.where(values_N < 0, values_N * repetition_N, values_N / repetition_N)
    values_N -= frequency_N * counts_N + presence_N * (counts_N > 0)
    flat_N.index_copy_(0, places_N, values_N)


def _keep_only(logits_V: Tensor, allowed: Sequence[int]) -> None:
    at = upload(allowed, logits_V.device)
    kept = logits_V[at]
    logits_V.fill_(_NEVER)
    logits_V[at] = kept
