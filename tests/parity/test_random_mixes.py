"""Any mix of kinds, ranks, lengths and arrivals answers as each row does alone by the reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, get_args

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from primitives_kit import World
from reference_kit import artefact_of

from adapters_store.backbone import Backbone
from adapters_store.primitives import Part
from adapters_store.primitives.bottleneck import BottleneckActivation, BottleneckPart, Reads
from adapters_store.primitives.low_rank import LowRankPart
from adapters_store.primitives.override import OverridePart
from adapters_store.primitives.prefix import PrefixPart
from adapters_store.primitives.prompt import PromptPart
from adapters_store.primitives.scale import ScalePart
from benchmarks.drive import Outcome, answers, drain

seeds = st.integers(0, 3)
choices = st.one_of(
    st.tuples(st.just("bare"), st.just(()), st.just(0)),
    st.tuples(st.just("routing"), st.just(()), st.just(0)),
    st.tuples(
        st.just("adapter"),
        st.lists(
            st.one_of(
                st.tuples(st.just("low_rank"), st.integers(1, 12), st.just(None)),
                st.tuples(st.just("scale"), st.sampled_from(["input", "output"]), st.just(None)),
                st.tuples(
                    st.just("bottleneck"),
                    st.sampled_from(get_args(Reads)),
                    st.sampled_from(get_args(BottleneckActivation)),
                ),
                st.tuples(st.just("override"), st.sampled_from(["replace", "add"]), st.just(None)),
                st.tuples(st.just("prefix"), st.integers(1, 5), st.booleans()),
                st.tuples(st.just("prompt"), st.integers(1, 4), st.booleans()),
            ),
            min_size=1,
            max_size=3,
            unique_by=lambda one: one[0],
        ).map(tuple),
        seeds,
    ),
)
rows = st.tuples(choices, st.integers(1, 20), st.lists(st.integers(0, 3), min_size=1, max_size=3))
"""An artefact, an input's length, and the steps after each of the rows that have both."""


def _parts(backbone: Backbone, kind: str, first: Any, second: Any, seed: int) -> list[Part]:
    """Parts of one primitive at a share of the places, which ``seed`` picks."""
    anatomy = backbone.shapes.anatomy
    sites = [name for i, name in enumerate(backbone.sites) if (i + seed) % 2 == 0]
    match kind:
        case "low_rank":
            return [LowRankPart(site=name, rank=min(first, 8), scale=0.7) for name in sites]
        case "scale":
            return [ScalePart(site=name, side=first) for name in sites]
        case "bottleneck":
            return [
                BottleneckPart(
                    block=one.name, rank=1 + 7 * seed, activation=second, reads=first, scale=0.5
                )
                for one in anatomy.blocks[seed % 2 :]
            ]
        case "override":
            return [
                OverridePart(vector=one.name, operation=first) for one in anatomy.vectors[seed::3]
            ]
        case "prefix":
            return [
                PrefixPart(attention=one.name, num_tokens=first, shifts_positions=second)
                for one in anatomy.attentions
            ]
    return [
        PromptPart(input=one.name, layer=layer, num_tokens=first, has_positions=second)
        for one in anatomy.inputs
        for layer in range(1 + seed % 2)
    ]


def _kind(world: World, choice: tuple[str, Any, int]) -> str | None:
    """The name of the choice's artefact, which is made and loaded when it is first drawn."""
    what, drawn, seed = choice
    if what != "adapter":
        return None if what == "bare" else "routing"
    name = repr(choice)
    if name not in world.artefacts:
        parts = [
            part for one in sorted(drawn, key=repr) for part in _parts(world.backbone, *one, seed)
        ]
        world.artefacts[name] = artefact_of(world.backbone, parts, seed=seed)
        world.loader.add(world.artefacts[name])
    return name


@pytest.fixture(scope="module", params=["t5", "llama", "bert"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    world = World(request.param)
    yield world
    world.close()


@given(
    drawn=st.lists(rows, min_size=1, max_size=10),
    max_rows=st.integers(1, 12),
    max_step_tokens=st.sampled_from([5, 64, 2048]),
)
@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_mix_answers_as_the_reference_does(
    world: World,
    drawn: list[tuple[tuple[str, Any, int], int, list[int]]],
    max_rows: int,
    max_step_tokens: int,
) -> None:
    engine = world.engine(max_rows=max_rows, max_step_tokens=max_step_tokens)
    outcomes: dict[str, Outcome] = {}
    expected = {}
    for number, (choice, length, pauses) in enumerate(drawn):
        generator = torch.Generator().manual_seed(length)
        ids = tuple(torch.randint(3, 60, (length,), generator=generator).tolist())
        kind = _kind(world, choice)
        for copy, num_steps in enumerate(pauses):
            name = f"{number}-{copy}"
            engine.submit(world.request(name, kind, ids))
            expected[name] = (kind, ids)
            drain(engine, outcomes, num_steps=num_steps)
    drain(engine, outcomes)
    engine.close()
    for name, (kind, ids) in expected.items():
        world.check(outcomes[name], kind, ids)


@pytest.mark.parametrize("max_step_tokens", [4, 2048])
def test_rows_of_one_input_share_its_reading_whatever_their_adapter_does(
    world: World, max_step_tokens: int
) -> None:
    engine = world.engine(max_step_tokens=max_step_tokens, prefix_cache_bytes=0)
    ids = tuple(range(5, 14))
    kinds = [None, *world.artefacts]
    outcomes: dict[str, Outcome] = {}
    for kind in kinds:
        answers(engine, [world.request("warm", kind, (3,))])
    for kind in kinds:
        for copy in range(2):
            engine.submit(world.request(f"{kind}/{copy}", kind, ids))
        drain(engine, outcomes, num_steps=1)
        engine.submit(world.request(f"{kind}/2", kind, ids))
        drain(engine, outcomes, num_steps=1)
    drain(engine, outcomes)
    assert engine.stats().num_reused_tokens_total >= len(kinds) * len(ids)
    engine.close()
    for kind in kinds:
        for copy in range(3):
            world.check(outcomes[f"{kind}/{copy}"], kind, ids)
