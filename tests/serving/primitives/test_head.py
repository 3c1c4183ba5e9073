"""``head``: padded batched scores against one row at a time."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from serving.primitives.head import Head, pool, reference, score

WIDTH = 6


@given(
    rows=st.lists(
        st.tuples(st.integers(1, 7), st.integers(1, 9), st.sampled_from(["mean", "cls"])),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=40, deadline=None)
def test_scores_of_rows_with_different_label_counts_equal_the_reference(rows):
    generator = torch.Generator().manual_seed(len(rows))
    lengths = [length for length, _, _ in rows]
    hidden = torch.randn(sum(lengths), WIDTH, generator=generator)
    heads = [
        Head(
            torch.randn(labels, WIDTH, generator=generator),
            torch.randn(labels, generator=generator),
            pooling,
        )
        for _, labels, pooling in rows
    ]
    found = score(*pool(hidden, lengths), heads)
    for got, expected, head in zip(found, reference(hidden, lengths, heads), heads):
        assert got.shape == (head.num_labels,)
        assert torch.allclose(got, expected, atol=1e-5)


def test_pooling_is_per_row():
    hidden = torch.arange(10.0).view(5, 2)
    mean, first = pool(hidden, [2, 3])
    assert torch.allclose(mean, torch.stack([hidden[:2].mean(0), hidden[2:].mean(0)]))
    assert torch.equal(first, hidden[[0, 2]])
