"""Log-probabilities of a prompt's own tokens, from the hidden states that read it.

Shapes: ``T`` prompt tokens, ``D`` hidden width, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from serving.engine.events import Token
from serving.engine.prefill import Encoded
from serving.engine.row import Row
from serving.engine.sampler import describe, finite_rows

_SLICE = 128


def score_prompts(
    encoded: Encoded, logits_of: Callable[[Tensor], Tensor]
) -> list[tuple[Row, tuple[Token, ...] | None]]:
    """Rows that ask for it with their prompts' tokens, each scored by what precedes it.

    The first token has no log-probability; None stands for a row whose logits are not finite.
    ``logits_of`` maps hidden states (n, D) to logits (n, V); it is called for slices, so that a
    long prompt takes little memory.
    """
    hidden = torch.split(encoded.hidden, encoded.lengths)
    return [
        (row, _score(row, hidden_TD[row.num_read - row.num_input :], logits_of))
        for row, hidden_TD in zip(encoded.rows, hidden, strict=True)
        if row.request.sampling.prompt_logprobs is not None
    ]


def _score(
    row: Row, hidden_TD: Tensor, logits_of: Callable[[Tensor], Tensor]
) -> tuple[Token, ...] | None:
    ids, name = row.request.input_ids, row.request.id
    count = row.request.sampling.prompt_logprobs or 0
    tokens = [Token(name, ids[0])]
    for start in range(0, len(ids) - 1, _SLICE):
        stop = min(start + _SLICE, len(ids) - 1)
        logits_TV = logits_of(hidden_TD[start:stop])
        if not all(finite_rows(logits_TV)):
            return None
        following = ids[start + 1 : stop + 1]
        logprobs_TV = logits_TV.float().log_softmax(dim=1)
        choices = describe(logprobs_TV, following, [count] * len(following))
        tokens += [Token(name, one.token, one.logprob, one.top) for one in choices]
    return tuple(tokens)
