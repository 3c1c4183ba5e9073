"""Decode steps over fixed memory write what plain ones do, while rows come, go and grow."""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from world_kit import World

from adapters_store.errors import UsageError
from benchmarks.drive import Outcome, answers
from serving.engine import Engine, EngineConfig, Request, Sampling, Token
from serving.engine.graphs import CudaGraphs, static_steps

pytest.importorskip("triton")
from triton.errors import TritonError

from serving.engine.static_step import StaticStep, Unrecorded, buckets_of

STATIC: dict[str, object] = {"kernels": "triton", "graphs": "unrecorded"}


class Watched(Unrecorded):
    """Counts the steps of every key."""

    def __init__(self) -> None:
        self.keys: Counter[Hashable] = Counter()

    def run(self, key: Hashable, step: Callable[[], Tensor]) -> Tensor | None:
        self.keys[key] += 1
        return super().run(key, step)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    recorder = Watched()
    plain = StaticStep.__init__

    def init(self: StaticStep, *values: Any) -> None:
        plain(self, *values[:-1], recorder)

    monkeypatch.setattr(StaticStep, "__init__", init)
    return recorder


def requests_of(world: World, count: int, longest: int = 24) -> list[Request]:
    """Rows of all tasks that end at different times."""
    tasks = world.tasks
    return [
        Request(
            f"{i}",
            "generate",
            tasks[(5 * i) % len(tasks)],
            ids,
            Sampling(max_tokens=2 + 2 * (i % 3), ignore_eos=True, logprobs=2),
        )
        for i, ids in enumerate(world.inputs(count, seed=1, longest=longest))
    ]


def assert_same(found: dict[str, Outcome], expected: dict[str, Outcome]) -> None:
    for name, outcome in expected.items():
        assert found[name].tokens == outcome.tokens, name
        own, theirs = (
            [event.logprob for event in one.events if isinstance(event, Token)]
            for one in (found[name], outcome)
        )
        assert own == pytest.approx(theirs, abs=1e-4)


@pytest.mark.parametrize("form", ["composed", "shared"])
def test_rows_of_all_tasks_write_what_they_write_in_plain_steps(
    world: World, form: str, watched: Watched
) -> None:
    requests = requests_of(world, 5)
    expected = answers(world.engine(mixture_form=form), requests)
    found = answers(world.engine(mixture_form=form, max_rows=3, **STATIC), requests)
    assert_same(found, expected)
    sizes = {key[0] for key in watched.keys}  # type: ignore[index]
    assert len(sizes) > 1
    assert sizes <= set(buckets_of(3))


def test_keys_and_values_move_to_larger_places(llama_world: World, watched: Watched) -> None:
    ids = llama_world.inputs(1, longest=60)[0]
    requests = [
        Request("grows", "generate", llama_world.loras[3], (*ids, *[5] * (62 - len(ids))), SHORT),
        Request("long", "generate", llama_world.routings[0], (7,) * 70, SHORT),
    ]
    expected = answers(llama_world.engine(), requests)
    assert_same(answers(llama_world.engine(**STATIC), requests), expected)
    assert sum(watched.keys.values()) >= SHORT.max_tokens - 1


SHORT = Sampling(max_tokens=5, ignore_eos=True, logprobs=2)


def test_equal_steps_have_equal_keys_and_others_do_not(
    llama_world: World, watched: Watched
) -> None:
    engine = llama_world.engine(**STATIC)
    bare = [Request(f"{i}", "generate", None, (5, 6), SHORT) for i in range(2)]
    answers(engine, bare)
    assert len(watched.keys) == 1
    answers(engine, bare)
    assert len(watched.keys) == 1
    for task in (llama_world.loras[0], llama_world.loras[1]):
        answers(engine, [Request("one", "generate", task, (5, 6), SHORT)])
    assert {key[0] for key in watched.keys} == {1, 2}  # type: ignore[index]
    assert len(watched.keys) == 2, "adapters of like ranks at the same sites share a step"


def test_a_step_reads_and_writes_no_host_value_after_its_inputs(
    llama_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a recording would not repeat: values that come from the host or go there."""
    made: list[str] = []
    inside = [False]
    own = threading.get_ident()

    class Guarded(Unrecorded):
        def run(self, key: Hashable, step: Callable[[], Tensor]) -> Tensor | None:
            inside[0] = True
            try:
                return step()
            finally:
                inside[0] = False

    for name in ("tensor", "as_tensor", "from_numpy"):
        plain = getattr(torch, name)

        def watch(*args: Any, _plain: Any = plain, _name: str = name, **kwargs: Any) -> Any:
            is_own = threading.get_ident() == own  # adapters are loaded by other threads
            if inside[0] and is_own and not _from_interpreter():
                made.append(_name)
            return _plain(*args, **kwargs)

        monkeypatch.setattr(torch, name, watch)
    plain_init = StaticStep.__init__

    def init(self: StaticStep, *values: Any) -> None:
        plain_init(self, *values[:-1], Guarded())

    monkeypatch.setattr(StaticStep, "__init__", init)
    tasks = [None, llama_world.loras[2], llama_world.routings[1]]
    requests = [Request(f"{t}", "generate", t, (5, 6), SHORT) for t in tasks]
    answers(llama_world.engine(**STATIC), requests)
    assert not made


def _from_interpreter() -> bool:
    frame = sys._getframe(2)
    while frame is not None:
        if "triton" in frame.f_code.co_filename:
            return True
        frame = frame.f_back
    return False


def static_of(engine: Engine) -> StaticStep:
    assert engine._generation is not None
    static = engine._generation._batch._static
    assert static is not None
    return static


def test_bare_steps_are_made_ahead_of_padding_alone(llama_world: World, watched: Watched) -> None:
    engine = llama_world.engine(max_rows=3, **STATIC)
    static_of(engine).record()
    shape = None
    assert dict(watched.keys) == {(size, shape, ()): 2 for size in (1, 2, 3)}
    requests = [Request("bare", "generate", None, (5, 6, 7), SHORT)]
    assert_same(answers(engine, requests), answers(llama_world.engine(), requests))
    assert set(watched.keys) == {(size, shape, ()) for size in (1, 2, 3)}


def test_buckets_are_powers_of_two_and_the_most_rows() -> None:
    assert buckets_of(1) == [1]
    assert buckets_of(8) == [1, 2, 4, 8]
    assert buckets_of(9) == [1, 2, 4, 8, 9]
    assert buckets_of(48) == [1, 2, 4, 8, 16, 32, 48]


def test_fixed_memory_without_kernels_is_refused(llama_world: World) -> None:
    with pytest.raises(UsageError, match="graphs is 'unrecorded' and low-rank products run by t"):
        llama_world.engine(graphs="unrecorded")
    with pytest.raises(UsageError, match="graphs is 'on'; known: auto, off, unrecorded"):
        EngineConfig(graphs="on")  # type: ignore[arg-type]


def test_plain_steps_are_made_where_nothing_is_recorded(llama_world: World) -> None:
    engine = llama_world.engine(kernels="triton")
    assert static_steps(engine._weights, engine.config, None, None) is None  # type: ignore[arg-type]
    requests = requests_of(llama_world, 4)
    assert_same(answers(engine, requests), answers(llama_world.engine(), requests))


class FailingGraph:
    def pool(self) -> tuple[int, int]:
        return (0, 0)


def test_a_recording_that_fails_is_said_once_and_left_to_plain_steps(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    monkeypatch.setattr(torch.cuda, "CUDAGraph", FailingGraph)
    monkeypatch.setattr(torch.cuda, "graph", fail)
    graphs = CudaGraphs(torch.device("cuda", 0))
    assert graphs.run("a", lambda: torch.ones(1)) is not None
    assert graphs.run("a", lambda: torch.ones(1)) is None
    assert graphs.run("b", lambda: torch.ones(1)) is None
    assert graphs.num_recorded == 0
    assert [record.message for record in caplog.records] == [
        "decode steps are not recorded on cuda:0: operation not permitted when stream is capturing"
    ]


def test_an_attention_kernel_that_does_not_run_leaves_plain_steps(
    llama_world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(step: StaticStep) -> None:
        raise TritonError("out of resource: shared memory\nmore")

    engine = llama_world.engine(kernels="triton")
    weights = replace(engine._weights, device=torch.device("cuda", 0))
    monkeypatch.setattr(StaticStep, "__init__", lambda *_: None)
    monkeypatch.setattr(StaticStep, "record", fail)
    assert static_steps(weights, engine.config, None, None) is None  # type: ignore[arg-type]
    assert [record.message for record in caplog.records] == [
        "decode steps are not recorded on cuda:0: out of resource: shared memory"
    ]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("form", ["composed", "shared"])
def test_recorded_steps_write_what_plain_ones_do(world: World, form: str) -> None:
    requests = requests_of(world, 11)
    cpu = answers(world.engine(mixture_form=form, device="cpu"), requests)
    engine = world.engine(dtype="float32", device="cuda", max_rows=5, mixture_form=form)
    for _ in range(3):
        assert_same(answers(engine, requests), cpu)
    recorder = static_of(engine)._recorder
    assert isinstance(recorder, CudaGraphs)
    assert recorder.num_recorded > len(buckets_of(5))
