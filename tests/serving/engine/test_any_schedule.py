"""Whatever the memory, the parts, the order of arrival and the mates: the same answers."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from world_kit import World

from benchmarks.drive import Outcome, answers, drain
from serving.engine import Request, Sampling

PLACE = 64 * 2 * 2 * 2 * 8 * 4


@pytest.fixture(scope="module")
def world(llama_world: World) -> World:
    return llama_world


@pytest.fixture(scope="module")
def requests(world: World) -> list[Request]:
    """Rows of all tasks, some of which begin alike; a third sampled, a third penalised."""
    common = world.inputs(1, seed=9, longest=40)[0] * 3
    made = []
    for i, own in enumerate(world.inputs(16, seed=4, longest=30)):
        sampling = Sampling(
            max_tokens=(3, 9, 60)[i % 3],
            ignore_eos=i % 2 == 0,
            temperature=0.8 if i % 3 == 1 else 0.0,
            seed=i,
            presence_penalty=0.5 if i % 3 == 2 else 0.0,
        )
        ids = (common[:70] if i % 4 < 2 else ()) + own
        made.append(Request(f"{i}", "generate", world.tasks[i // 2 % 8], ids, sampling))
    return made


@pytest.fixture(scope="module")
def expected(world: World, requests: list[Request]) -> dict[str, list[int]]:
    """The tokens of each row alone, in an engine without limits."""
    engine = world.engine(prefix_cache_bytes=0)
    return {one.id: answers(engine, [one])[one.id].tokens for one in requests}


@settings(
    max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_answers_depend_on_the_row_alone(
    world: World, requests: list[Request], expected: dict[str, list[int]], data: st.DataObject
) -> None:
    chosen = data.draw(st.permutations(requests), label="order")[: data.draw(st.integers(1, 16))]
    engine = world.engine(
        max_rows=data.draw(st.integers(1, 16), label="rows"),
        max_step_tokens=data.draw(st.sampled_from([5, 32, 256]), label="step"),
        max_kv_bytes=PLACE * data.draw(st.sampled_from([8, 12, 1000]), label="places"),
        prefix_cache_bytes=PLACE * data.draw(st.sampled_from([0, 2, 100]), label="kept"),
        mixture_form=data.draw(st.sampled_from(["composed", "shared"]), label="form"),
    )
    outcomes: dict[str, Outcome] = {}
    for request in chosen:
        engine.submit(request)
        drain(engine, outcomes, num_steps=data.draw(st.integers(0, 3)))
    while engine.has_work:
        drain(engine, outcomes, num_steps=1)
        assert engine.stats().kv_bytes <= engine.config.max_kv_bytes
    assert {name: one.tokens for name, one in outcomes.items()} == {
        one.id: expected[one.id] for one in chosen
    }
    assert engine.stats().kv_bytes == 0
