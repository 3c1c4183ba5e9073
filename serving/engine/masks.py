"""Tokens that a row must or may not write at its next place.

Shapes: ``V`` vocabulary.
"""

from __future__ import annotations

from torch import Tensor

from serving.engine.row import Row
from serving.upload import upload

_NEVER = float("-inf")


def mask(logits_V: Tensor, row: Row) -> None:
    """Change the logits of one row in place, in the order of transformers' ``generate``.

    Those of bans first, then the forced token has the logit 0 and no other is a candidate, then
    what is suppressed.
    """
    sampling = row.request.sampling
    if row.bans is not None:
        _fill(logits_V, row.bans.banned(), _NEVER)
    forced = _forced(row)
    if forced:
        logits_V.fill_(_NEVER)
        _fill(logits_V, forced, 0.0)
    _fill(logits_V, sampling.suppress_tokens, _NEVER)
    has_forced_first = sampling.forced_bos_token_id is not None and _reads_one(row)
    if row.num_output == has_forced_first:
        _fill(logits_V, sampling.begin_suppress_tokens, _NEVER)


def _forced(row: Row) -> tuple[int, ...]:
    """Of which tokens one has to come next; none where any may."""
    sampling = row.request.sampling
    if row.num_output == sampling.max_tokens - 1 and sampling.forced_eos_token_ids:
        return sampling.forced_eos_token_ids
    if row.num_output == 0 and sampling.forced_bos_token_id is not None and _reads_one(row):
        return (sampling.forced_bos_token_id,)
    return ()


def _reads_one(row: Row) -> bool:
    """Whether the decoder has read a single token before the first one that is written."""
    return row.reads == "encoder" or row.num_input == 1


def _fill(logits_V: Tensor, tokens: tuple[int, ...] | set[int], value: float) -> None:
    if tokens:
        logits_V.index_fill_(0, upload(list(tokens), logits_V.device), value)
