"""``head``: rows of one head at once against one row at a time."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters_store.errors import IncompatibleError
from adapters_store.primitives.head import HeadPart
from serving.primitives.head import Affine, Head, Span, States, prepare, reference, score
from serving.primitives.layout import SiteLayout
from serving.primitives.prepared import Target

WIDTH = 6
CPU = torch.device("cpu")
POOLER = (torch.linspace(-1, 1, WIDTH * WIDTH).view(WIDTH, WIDTH), torch.linspace(0, 1, WIDTH))
WITH_POOLER = Target(SiteLayout([]), torch.float32, CPU, pooler=POOLER)
WITHOUT = Target(SiteLayout([]), torch.float32, CPU)


def _head(labels, pooling, dense, seed=0):
    part = HeadPart(num_labels=labels, pooling=pooling, dense_size=dense)
    shapes = {"weight": (labels, dense or WIDTH), "bias": (labels,)}
    if dense is not None:
        shapes |= {"dense_weight": (dense, WIDTH), "dense_bias": (dense,)}
    generator = torch.Generator().manual_seed(seed)
    tensors = {f"head/{n}": torch.randn(s, generator=generator) for n, s in shapes.items()}
    return prepare([part], tensors, WITH_POOLER).head


HEADS = [
    _head(3, "mean", None),
    _head(2, "cls", 4),
    _head(5, "last", None, seed=1),
    _head(1, "pooled", 3),
    _head(3, "mean", 2, seed=2),
]

rows = st.tuples(st.integers(1, 7), st.integers(0, 3), st.sampled_from(HEADS), st.booleans())


@given(chosen=st.lists(rows, min_size=1, max_size=9))
@settings(max_examples=60, deadline=None)
def test_scores_of_any_mix_of_heads_equal_the_reference(chosen):
    generator = torch.Generator().manual_seed(len(chosen))
    spans, start = [], 0
    for num_tokens, num_prompt_rows, _, _ in chosen:
        spans.append(Span(start, start + num_prompt_rows + num_tokens, num_prompt_rows))
        start = spans[-1].stop
    hidden = torch.randn(start, WIDTH, generator=generator)
    asked = [i for i, (*_, is_asked) in enumerate(chosen) if is_asked]
    heads = [chosen[i][2] for i in asked]
    found = score(States(hidden, spans), asked, heads)
    for got, expected, head in zip(
        found, reference(hidden, [spans[i] for i in asked], heads), heads
    ):
        assert got.shape == (head.num_labels,)
        torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_pooling_is_per_row_and_a_prompt_counts_for_the_first_row_alone():
    hidden = torch.arange(12.0).view(6, 2)
    states = States(hidden, [Span(0, 2), Span(2, 6, num_prompt_rows=1)])
    expected = torch.stack([hidden[:2].mean(0), hidden[3:].mean(0)])
    torch.testing.assert_close(states.of("mean"), expected)
    assert torch.equal(states.of("cls"), hidden[[0, 2]])
    assert torch.equal(states.of("pooled"), hidden[[0, 2]])
    assert torch.equal(states.of("last"), hidden[[1, 5]])


def test_low_precision_states_are_scored_in_float32():
    hidden = torch.randn(3, WIDTH, dtype=torch.bfloat16)
    (found,) = score(States(hidden, [Span(0, 3)]), [0], [HEADS[0]])
    assert found.dtype == torch.float32


def test_a_head_over_a_pooler_that_the_checkpoint_lacks_is_refused():
    part = HeadPart(num_labels=2, pooling="pooled")
    tensors = {"head/weight": torch.ones(2, WIDTH), "head/bias": torch.ones(2)}
    with pytest.raises(IncompatibleError, match="pooler; the served checkpoint holds none"):
        prepare([part], tensors, WITHOUT)


def test_a_head_counts_its_own_bytes_and_not_the_poolers():
    assert HEADS[3].num_bytes == 4 * (1 * 3 + 1 + 3 * WIDTH + 3)
    bare = Head(Affine(torch.ones(2, 3), torch.ones(2)), "mean")
    assert (bare.num_bytes, bare.num_labels) == (4 * 8, 2)
