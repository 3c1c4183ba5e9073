"""``head``: the row's own classifier over its pooled last hidden state.

Rows of one head run together, so a step costs a few products for every distinct head among its
rows; :func:`reference` takes one row at a time. Heads run in float32 whatever the backbone's dtype.

Shapes: ``R`` rows, ``T`` packed tokens, ``n`` rows of one head, ``D`` hidden width, ``E`` width of
the dense layer, ``L`` labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn.functional import linear

from adapters_store.errors import IncompatibleError
from adapters_store.primitives.head import BIAS, DENSE_BIAS, DENSE_WEIGHT, WEIGHT
from serving.primitives.prepared import Prepared, Target
from serving.upload import upload

Pooling = Literal["mean", "cls", "last", "pooled"]


@dataclass(frozen=True, slots=True)
class Affine:
    """``v weight^T + bias``, float32: ``weight`` (out, in), ``bias`` (out,)."""

    weight: Tensor
    bias: Tensor

    def __call__(self, v: Tensor) -> Tensor:
        """(n, in) to (n, out)."""
        return linear(v, self.weight, self.bias)


@dataclass(frozen=True, slots=True, eq=False)
class Head:
    """``labels`` over the pooled state, or over the tanh of ``dense``.

    ``pooler`` is the backbone's own, which ``pooled`` runs over the first row.
    """

    labels: Affine
    pooling: Pooling
    dense: Affine | None = None
    pooler: Affine | None = None

    @property
    def num_labels(self) -> int:
        """L."""
        return self.labels.weight.shape[0]

    @property
    def num_bytes(self) -> int:
        """Bytes of the head's own tensors."""
        own = [part for part in (self.labels, self.dense) if part is not None]
        return sum(part.weight.nbytes + part.bias.nbytes for part in own)

    def __call__(self, state_nD: Tensor) -> Tensor:
        """Scores (n, L) of pooled states; for ``pooled`` they are the first rows' states."""
        v = state_nD
        if self.pooler is not None:
            v = torch.tanh(self.pooler(v))
        if self.dense is not None:
            v = torch.tanh(self.dense(v))
        return self.labels(v)


def prepare(parts: Sequence[Any], tensors: Mapping[str, Tensor], target: Target) -> Prepared:
    """The head of an artefact.

    Raises IncompatibleError where it wants the backbone's pooler and the checkpoint has none.
    """
    (part,) = parts

    def affine(weight: Tensor, bias: Tensor) -> Affine:
        moved = (tensor.to(target.device, torch.float32) for tensor in (weight, bias))
        return Affine(*(tensor.contiguous() for tensor in moved))

    dense = pooler = None
    if part.dense_size is not None:
        dense = affine(tensors[DENSE_WEIGHT], tensors[DENSE_BIAS])
    if part.pooling == "pooled":
        if target.pooler is None:
            raise IncompatibleError(
                "the head reads the backbone's pooler; the served checkpoint holds none",
                hint="Serve a checkpoint with its pooler, or pool by 'cls', 'mean' or 'last'.",
            )
        pooler = affine(*target.pooler)
    return Prepared(head=Head(affine(tensors[WEIGHT], tensors[BIAS]), part.pooling, dense, pooler))


@dataclass(frozen=True, slots=True)
class Span:
    """A row's hidden states in the packed step: ``start`` up to, not including, ``stop``.

    The first ``num_prompt_rows`` of them belong to a prompt; at least one token follows.
    """

    start: int
    stop: int
    num_prompt_rows: int = 0


class States:
    """Pooled states of packed rows in float32, (R, D) each, computed when they are asked for."""

    def __init__(self, hidden_TD: Tensor, spans: Sequence[Span]) -> None:
        self._hidden = hidden_TD
        self._spans = spans

    def of(self, pooling: Pooling) -> Tensor:
        """What a head of that pooling reads."""
        if pooling == "mean":
            return self.mean
        return self.last if pooling == "last" else self.first

    @cached_property
    def mean(self) -> Tensor:
        """Mean over each row's tokens, without the rows of a prompt."""
        device = self._hidden.device
        firsts = [s.start + s.num_prompt_rows for s in self._spans]
        num_tokens = sum(s.stop - first for s, first in zip(self._spans, firsts, strict=True))
        starts = upload(firsts, device)
        counts = upload([s.stop for s in self._spans], device) - starts
        numbers = torch.arange(len(self._spans), device=device)
        row_of = numbers.repeat_interleave(counts, output_size=num_tokens)
        hidden = self._hidden
        if not self._is_packed:
            before = counts.cumsum(0) - counts
            at = torch.arange(num_tokens, device=device) + (starts - before)[row_of]
            hidden = hidden.index_select(0, at)
        total = torch.zeros(len(self._spans), hidden.shape[1], device=device)
        return total.index_add_(0, row_of, hidden.float()) / counts.unsqueeze(1)

    @cached_property
    def first(self) -> Tensor:
        """The first state of each row, a prompt's where there is one, else the first token's."""
        return self._at([span.start for span in self._spans])

    @cached_property
    def last(self) -> Tensor:
        """Last tokens' states."""
        return self._at([span.stop - 1 for span in self._spans])

    @property
    def _is_packed(self) -> bool:
        """Whether the rows' tokens are all states, in order."""
        stop = 0
        for span in self._spans:
            if span.start != stop or span.num_prompt_rows:
                return False
            stop = span.stop
        return stop == self._hidden.shape[0]

    def _at(self, places: Sequence[int]) -> Tensor:
        at = upload(places, self._hidden.device)
        return self._hidden.index_select(0, at).float()


def reference(hidden_TD: Tensor, spans: Sequence[Span], heads: Sequence[Head]) -> list[Tensor]:
    """Scores of every row, one at a time: a (L,) tensor each."""
    scores = []
    for span, head in zip(spans, heads, strict=True):
        tokens = hidden_TD[span.start + span.num_prompt_rows : span.stop].float()
        first = hidden_TD[span.start].float()
        v = {"mean": tokens.mean(dim=0), "last": tokens[-1]}.get(head.pooling, first)
        if head.pooler is not None:
            v = torch.tanh(head.pooler.weight @ v + head.pooler.bias)
        if head.dense is not None:
            v = torch.tanh(head.dense.weight @ v + head.dense.bias)
        scores.append(head.labels.weight @ v + head.labels.bias)
    return scores


def score(states: States, rows: Sequence[int], heads: Sequence[Head]) -> list[Tensor]:
    """Scores of ``rows`` of the step under a head each, rows of one head at once: (L,) each."""
    members: dict[Head, list[int]] = {}
    for position, head in enumerate(heads):
        members.setdefault(head, []).append(position)
    scores: dict[int, Tensor] = {}
    for head, positions in members.items():
        state_RD = states.of(head.pooling)
        at = upload([rows[position] for position in positions], state_RD.device)
        for position, own in zip(positions, head(state_RD.index_select(0, at)), strict=True):
            scores[position] = own
    return [scores[position] for position in range(len(heads))]
