"""Every primitive of the engine against the reference on transformers, alone and in company."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from primitives_kit import BACKBONES, KINDS, SAVED, World

from benchmarks.drive import Outcome, answers, drain
from serving.engine import Engine, EngineConfig, Request, Token

ALL_KINDS = (*KINDS, "routing")


@pytest.fixture(scope="module", params=[*BACKBONES, *SAVED])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    world = World(request.param)
    yield world
    world.close()


def mixed_requests(world: World) -> dict[str, tuple[str | None, Request]]:
    """Every kind over every input, with bare rows in between, by request id."""
    found = {}
    for i, ids in enumerate(world.inputs()):
        for j, kind in enumerate([None, *ALL_KINDS, *world.heads, None]):
            name = f"{i}-{j}"
            found[name] = (kind, world.request(name, kind, ids))
    return found


def settled(engine: Engine, requests: list[Request]) -> dict[str, Outcome]:
    """Outcomes of one batch that starts together: its adapters are in memory."""
    answers(engine, requests)
    return answers(engine, requests)


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_a_row_alone_equals_the_reference(world: World, kind: str) -> None:
    engine = world.engine()
    for ids in world.inputs():
        world.check(answers(engine, [world.request("a", kind, ids)])["a"], kind, ids)


def test_a_head_alone_equals_the_reference(world: World) -> None:
    engine = world.engine()
    for kind in world.heads:
        for ids in world.inputs():
            outcome = answers(engine, [world.request("a", kind, ids)])["a"]
            world.check(outcome, kind, ids)
            assert outcome.scores is not None


@pytest.mark.parametrize("kind", ALL_KINDS)
def test_the_effect_is_not_the_bare_backbone(world: World, kind: str) -> None:
    ids = world.inputs()[0]
    bare, own = world.expected(None, ids), world.expected(kind, ids)
    if world.can_generate:
        assert (bare.logprobs - own.logprobs).abs().max() > 1e-2
    else:
        assert (bare.vector - own.vector).abs().max() > 1e-3


@pytest.mark.parametrize("form", ["composed", "shared"])
def test_rows_of_every_kind_in_one_batch_equal_the_reference(world: World, form: str) -> None:
    requests = mixed_requests(world)
    engine = world.engine(max_rows=128, mixture_form=form)
    outcomes = settled(engine, [request for _, request in requests.values()])
    for name, (kind, request) in requests.items():
        world.check(outcomes[name], kind, request.input_ids)
    if world.can_generate:
        writing = [r for _, r in requests.values() if r.kind == "generate"]
        assert max(engine.stats().batch_rows) == len(writing)
        assert engine.stats().table_bytes == 0


def test_rows_that_come_and_go_equal_the_reference(world: World) -> None:
    requests = mixed_requests(world)
    engine = world.engine(max_rows=5, max_step_tokens=40)
    outcomes = answers(engine, [request for _, request in reversed(requests.values())])
    for name, (kind, request) in requests.items():
        world.check(outcomes[name], kind, request.input_ids)


def test_rows_whose_input_is_read_in_parts_equal_the_reference(world: World) -> None:
    requests = mixed_requests(world)
    engine = world.engine(max_rows=128, max_step_tokens=4)
    outcomes = answers(engine, [request for _, request in requests.values()])
    for name, (kind, request) in requests.items():
        world.check(outcomes[name], kind, request.input_ids)


def test_inputs_that_begin_alike_equal_the_reference(world: World) -> None:
    generator = torch.Generator().manual_seed(8)
    start = tuple(torch.randint(3, 60, (34,), generator=generator).tolist())
    engine = world.engine(max_rows=128)
    has_one_stack = world.can_generate and not world.is_encoder_decoder
    kinds = [None, *(ALL_KINDS if has_one_stack else ("low_rank", "everything"))]
    for ending in ((5,), (9, 4)):
        ids = start + ending
        requests = {f"{kind}": world.request(f"{kind}", kind, ids) for kind in kinds}
        outcomes = answers(engine, list(requests.values()))
        for kind in kinds:
            world.check(outcomes[f"{kind}"], kind, ids)
    num_reused = 32 * len(kinds) if has_one_stack else 0
    assert engine.stats().num_reused_tokens_total == num_reused


def test_rows_whose_keys_and_values_were_dropped_equal_the_reference(world: World) -> None:
    requests = mixed_requests(world)
    engine = world.engine(max_rows=128)
    answers(engine, [request for _, request in requests.values()])
    outcomes: dict[str, Outcome] = {}
    for _, request in requests.values():
        engine.submit(request)
    number = 0
    while engine.has_work:
        drain(engine, outcomes, num_steps=1)
        number += 1
        generation = engine._generation
        if generation is not None and number in (1, 3, 4):
            with torch.inference_mode():
                for _ in range(len(generation.running) // 2):
                    generation._preempt()
    for name, (kind, request) in requests.items():
        world.check(outcomes[name], kind, request.input_ids)
    if world.can_generate:
        assert engine.stats().num_preempted_total > len(requests) / 2
        assert engine.stats().kv_bytes == 0


def test_every_kind_runs_in_low_precision_near_the_reference(world: World) -> None:
    requests = mixed_requests(world)
    engine = Engine(world.backbone, world.loader, EngineConfig(dtype="bfloat16", max_rows=128))
    world.engines.append(engine)
    outcomes = answers(engine, [request for _, request in requests.values()])
    far = 0
    for name, (kind, request) in requests.items():
        outcome, expected = outcomes[name], world.expected(kind, request.input_ids)
        assert outcome.code is None, (kind, outcome.events)
        first = [e.top[0][1] for e in outcome.events if isinstance(e, Token)][:1]
        found = torch.tensor(outcome.vector or outcome.scores or first)
        wanted = torch.cat([expected.vector, expected.scores, expected.logprobs.flatten()[:1]])
        far += bool((found - wanted).abs().max() > 0.25 * (1 + wanted.abs().max()))
    assert far <= len(requests) / 10


def keeps_shapes(world: World, kind: str | None) -> bool:
    """True where a row's adapter puts nothing in front of it: products of a step stay as wide."""
    parts = () if kind is None else world.artefacts[kind].manifest.parts
    return not any(part.primitive in ("prefix", "prompt") for part in parts)


def test_a_bare_row_is_bit_for_bit_what_it_is_among_bare_rows(world: World) -> None:
    requests = {
        name: (kind, request)
        for name, (kind, request) in mixed_requests(world).items()
        if keeps_shapes(world, kind)
    }
    assert len(requests) > 40
    mixed = settled(world.engine(max_rows=128), [request for _, request in requests.values()])
    plain = {"classify": world.artefacts["head over the mean"].digest}
    alike = [replace(r, adapter=plain.get(r.kind)) for _, r in requests.values()]
    bare = settled(world.engine(max_rows=128), alike)
    for name, (kind, _) in requests.items():
        if kind is None:
            assert mixed[name].events == bare[name].events
