"""Log-probabilities of a prompt's own tokens, from the hidden states that read it.

Shapes: ``T`` prompt tokens, ``D`` hidden width, ``V`` vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from serving.engine.events import Prompt, Token
from serving.engine.prefill import Encoded
from serving.engine.row import Row
from serving.engine.sampler import Choice, describe, finite_rows

LogitsOf = Callable[[Tensor], Tensor]
"""Maps hidden states (n, D) to logits (n, V)."""

_SLICE = 128


def score_prompts(encoded: Encoded, logits_of: LogitsOf) -> list[tuple[Row, Prompt | None]]:
    """Rows that ask for it with their prompts' tokens, each scored by what precedes it.

    None stands for a row whose logits are not finite.
    """
    scored: dict[tuple[int, int], list[Choice] | None] = {}
    found = []
    for row, source, start in zip(encoded.rows, encoded.sources, encoded.starts, strict=True):
        count = row.request.sampling.prompt_logprobs
        if count is None:
            continue
        if (source, count) not in scored:
            own = encoded.hidden[start : start + row.num_read]
            scored[source, count] = score(row, count, own, 0, logits_of)
        choices = scored[source, count]
        found.append((row, None if choices is None else told(row, choices)))
    return found


def score(
    row: Row, count: int, hidden_TD: Tensor, first: int, logits_of: LogitsOf
) -> list[Choice] | None:
    """The prompt's tokens that the states predict, each with the ``count`` likeliest in its place.

    The states begin at the input's row ``first``. None where logits are not finite. ``logits_of``
    is called for slices, so that a long prompt takes little memory.
    """
    ids = row.request.input_ids
    token = first - (row.num_read - row.num_input)
    hidden_TD = hidden_TD[max(0, -token) :]
    following = ids[max(0, token) + 1 :][: hidden_TD.shape[0]]
    choices: list[Choice] = []
    for start in range(0, len(following), _SLICE):
        some = following[start : start + _SLICE]
        logits_TV = logits_of(hidden_TD[start : start + len(some)])
        if not all(finite_rows(logits_TV)):
            return None
        choices += describe(logits_TV.float().log_softmax(dim=1), some, [count] * len(some))
    return choices


def told(row: Row, choices: Sequence[Choice]) -> Prompt:
    """The event that gives a prompt's scores; its first token has none."""
    name = row.request.id
    first = Token(name, row.request.input_ids[0])
    return Prompt(name, (first, *(Token(name, c.token, c.logprob, c.top) for c in choices)))
