"""``bottleneck``: both plans against the formula, for all that it reads and any mix of forms."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from plan_kit import decode_plan, prepared_of, run_plan
from torch.nn import functional

from adapters_store.families.architecture import Norm
from adapters_store.primitives.bottleneck import BottleneckActivation, BottleneckPart, Reads
from serving.engine.transformer.norm import Normalisation
from serving.primitives.bottleneck import reference
from serving.primitives.prepared import Prepared

WIDTH = 6
BLOCK = "decoder.0.after_ffn"
BARE = Prepared()
GAIN, BIAS = torch.linspace(0.5, 1.5, WIDTH), torch.linspace(-0.1, 0.1, WIDTH)
POST = Normalisation("decoder.0.ffn.norm", Norm("layer", 1e-5, "post"), GAIN, BIAS)

parts = st.dictionaries(
    st.sampled_from(get_args(Reads)),
    st.tuples(
        st.integers(1, 40),
        st.sampled_from(get_args(BottleneckActivation)),
        st.sampled_from([None, 1e-5]),
    ),
    min_size=1,
)
adapters = st.one_of(st.none(), st.tuples(parts, st.integers(0, 99)))


def _prepared(adapter):
    if adapter is None:
        return BARE
    chosen, seed = adapter
    generator = torch.Generator().manual_seed(seed)
    made, tensors = [], {}
    for reads, (rank, activation, eps) in chosen.items():
        part = BottleneckPart(
            block=BLOCK, rank=rank, activation=activation, reads=reads, scale=0.3, norm_eps=eps
        )
        made.append(part)
        stem = f"{BLOCK}/bottleneck/{reads}"
        shapes = {"down": (WIDTH, rank), "down_bias": (rank,), "up": (rank, WIDTH)}
        shapes |= {"up_bias": (WIDTH,), "norm_gain": (WIDTH,), "norm_bias": (WIDTH,)}
        for name, shape in shapes.items():
            tensors[f"{stem}/{name}"] = torch.randn(shape, generator=generator)
    return prepared_of(made, tensors)


def _check(plan, rows, norm):
    generator = torch.Generator().manual_seed(len(rows))
    x, u, f = (torch.randn(len(rows), WIDTH, generator=generator) for _ in range(3))
    found = f.clone()
    plan.after(BLOCK, x, u, found, norm)
    expected = reference(x, u, f, [row.bottlenecks.get(BLOCK) for row in rows], norm)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    bare = [i for i, row in enumerate(rows) if row is BARE]
    assert torch.equal(found[bare], f[bare])


@given(chosen=st.lists(adapters, min_size=1, max_size=7), through=st.integers(0, 5))
@settings(max_examples=40, deadline=None)
@pytest.mark.parametrize("norm", [None, POST], ids=["norms before", "norms behind"])
def test_both_plans_equal_the_reference(norm, chosen, through):
    rows = [_prepared(adapter) for adapter in chosen]
    _check(decode_plan(rows, through=through), rows, norm)
    tokens = [row for i, row in enumerate(rows) for _ in range(1 + i % 3)]
    _check(run_plan(tokens), tokens, norm)


@pytest.mark.parametrize("activation", get_args(BottleneckActivation))
def test_the_formula_is_the_one_of_the_manual(activation):
    formulas = {
        "relu": lambda z: z.clamp(min=0),
        "gelu": functional.gelu,
        "gelu_tanh": lambda z: functional.gelu(z, approximate="tanh"),
        "silu": lambda z: z * z.sigmoid(),
        "tanh": lambda z: z.tanh(),
        "sigmoid": lambda z: z.sigmoid(),
        "leaky_relu": lambda z: torch.where(z > 0, z, 0.01 * z),
        "identity": lambda z: z,
    }
    part = BottleneckPart(block=BLOCK, rank=2, activation=activation, reads="residual", scale=3.0)
    stem = f"{BLOCK}/bottleneck/residual"
    generator = torch.Generator().manual_seed(1)
    shapes = {"down": (WIDTH, 2), "down_bias": (2,), "up": (2, WIDTH), "up_bias": (WIDTH,)}
    tensors = {f"{stem}/{n}": torch.randn(s, generator=generator) for n, s in shapes.items()}
    down, down_bias, up, up_bias = tensors.values()
    x, f = torch.randn(1, WIDTH, generator=generator), torch.zeros(1, WIDTH)
    decode_plan([prepared_of([part], tensors)]).after(BLOCK, x, x, f, None)
    expected = 3.0 * (formulas[activation](x @ down + down_bias) @ up + up_bias)
    torch.testing.assert_close(f, expected, atol=1e-5, rtol=1e-5)
