"""The engine core as a process: events, errors, cancellation, and how it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import aclosing
from pathlib import Path

import pytest
from live_server import LoopThread
from serve_kit import adapter_of, fill_store, serve_config

from adapters_store.backbone import Backbone
from adapters_store.errors import (
    InvalidArtefactError,
    NotFoundError,
    OverloadedError,
    PatchbayError,
    UnavailableError,
    UsageError,
)
from adapters_store.manifest import LowRankPart
from adapters_store.primitives.prompt import PromptPart
from adapters_store.store import Store
from serving.config import BackboneConfig, EngineSection
from serving.core.client import CoreClient
from serving.core.messages import Heartbeat, StepReport
from serving.engine import Finished, Request, Sampling, Token

HELLO = (*(byte + 3 for byte in b"hello"), 1)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, byte_t5: Backbone) -> Path:
    folder = tmp_path_factory.mktemp("core") / "store"
    fill_store(folder, byte_t5)
    return folder


def make_client(backbone: Backbone, store: Path, **changes: int) -> CoreClient:
    config = BackboneConfig(name="tiny", folder=backbone.folder)
    return CoreClient(config, EngineSection(max_rows=4, **changes), store)


@pytest.fixture(scope="module")
def core(loop: LoopThread, byte_t5: Backbone, store: Path) -> Iterator[CoreClient]:
    async def make() -> CoreClient:
        client = make_client(byte_t5, store, max_waiting=16)
        ready = await client.start(timeout_s=200)
        assert ready.fingerprint == byte_t5.fingerprint
        assert ready.pid == client.pid
        return client

    client = loop.run(make())
    yield client
    loop.run(client.close())


def ask(adapter: str | None = None, max_tokens: int = 8, ids: tuple[int, ...] = HELLO) -> Request:
    return Request(uuid.uuid4().hex, "generate", adapter, ids, Sampling(max_tokens=max_tokens))


async def collect(core: CoreClient, request: Request) -> list[int]:
    async with aclosing(core.generate(request)) as events:
        found = [event async for event in events]
    assert isinstance(found[-1], Finished)
    assert found[-1].num_output_tokens == len(found) - 1
    return [event.token for event in found if isinstance(event, Token)]


def digest_of(store: Path, name: str) -> str:
    with Store.open(store) as opened:
        return opened.resolve(name).digest


def test_rows_of_different_tasks_share_steps_and_messages(
    loop: LoopThread, core: CoreClient, store: Path
) -> None:
    adapters = [None, digest_of(store, "acme/upper"), digest_of(store, "acme/routed")]
    alone = [loop.run(collect(core, ask(adapter))) for adapter in adapters]
    reports: list[StepReport | Heartbeat] = []

    async def together() -> list[list[int]]:
        core._observer = reports.append
        return await asyncio.gather(*(collect(core, ask(adapter)) for adapter in adapters))

    assert loop.run(together()) == alone
    assert len({tuple(one) for one in alone}) == 3
    steps = [report for report in reports if isinstance(report, StepReport)]
    assert max(step.num_distinct_adapters for step in steps) == 2
    assert max(step.num_rows for step in steps) == 3
    assert len(steps) < sum(len(step.events) for step in steps)


def test_an_adapter_that_the_engine_cannot_run_fails_alone(
    loop: LoopThread, core: CoreClient, store: Path, byte_t5: Backbone
) -> None:
    part = PromptPart(input="encoder", layer=1, num_tokens=2, has_positions=False)
    low_rank = LowRankPart(site="decoder.0.self.q", rank=2, scale=1.0)
    with Store.open(store) as opened:
        refused = opened.publish("acme/prompt", adapter_of(byte_t5, part, low_rank)).digest
    good = [None, digest_of(store, "acme/upper"), digest_of(store, "acme/routed")]
    alone = [loop.run(collect(core, ask(adapter))) for adapter in good]

    async def together() -> list[object]:
        asked = [*good, refused, good[1], refused]
        calls = (collect(core, ask(adapter)) for adapter in asked)
        return list(await asyncio.gather(*calls, return_exceptions=True))

    for _ in range(2):
        results = loop.run(together())
        for failed in (results[3], results[5]):
            assert isinstance(failed, InvalidArtefactError)
            assert "layer 1 of 'encoder' has 2 rows; at layer 0 it has 0" in failed.message
        assert [*results[:3], results[4]] == [*alone, alone[1]]


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (ask("sha256:" + "0" * 64), NotFoundError),
        (ask(ids=(99_999,)), UsageError),
        (ask(ids=()), UsageError),
    ],
)
def test_errors_of_the_core_are_the_same_errors_here(
    loop: LoopThread, core: CoreClient, request_: Request, error: type[PatchbayError]
) -> None:
    with pytest.raises(error):
        loop.run(collect(core, request_))


def test_a_full_queue_is_overloaded_and_drains(loop: LoopThread, core: CoreClient) -> None:
    async def flood() -> list[object]:
        calls = (collect(core, ask(max_tokens=60)) for _ in range(40))
        return list(await asyncio.gather(*calls, return_exceptions=True))

    results = loop.run(flood())
    refused = [one for one in results if isinstance(one, OverloadedError)]
    assert 0 < len(refused) < 40
    assert all(isinstance(one, list | OverloadedError) for one in results)
    assert len(loop.run(collect(core, ask()))) == 8


def test_leaving_early_cancels_the_row_in_the_core(loop: LoopThread, core: CoreClient) -> None:
    async def leave() -> None:
        async with aclosing(core.generate(ask(max_tokens=2000))) as events:
            async for event in events:
                assert isinstance(event, Token)
                break

    async def abandon() -> None:
        task = asyncio.create_task(collect(core, ask(max_tokens=2000)))
        await asyncio.sleep(0.1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()

    async def idle() -> None:
        stats = core.stats()
        while stats is None or stats.num_running or stats.num_waiting:
            await asyncio.sleep(0.05)
            stats = core.stats()

    for early in (leave, abandon):
        loop.run(early())
        assert core.num_waiting == 0
        loop.run(asyncio.wait_for(idle(), 20))


def test_an_idle_core_says_heartbeats_and_uses_no_processor(
    loop: LoopThread, core: CoreClient
) -> None:
    heard: list[StepReport | Heartbeat] = []

    async def listen() -> None:
        await asyncio.sleep(0.3)
        core._observer = heard.append

    loop.run(listen())
    before, started = processor_s(core.pid), time.monotonic()
    time.sleep(2.5)
    share = (processor_s(core.pid) - before) / (time.monotonic() - started)
    assert share < 0.1
    assert any(isinstance(one, Heartbeat) for one in heard)
    core.check(stall_timeout_s=60)
    with pytest.raises(UnavailableError, match="silent"):
        core.check(stall_timeout_s=0)


def processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM])
def test_when_the_core_ends_every_waiting_request_fails(
    loop: LoopThread, byte_t5: Backbone, store: Path, end: signal.Signals
) -> None:
    async def scenario() -> list[object]:
        core = make_client(byte_t5, store)
        await core.start(timeout_s=200)
        core.check(60)
        tasks = [asyncio.create_task(collect(core, ask(max_tokens=2000))) for _ in range(6)]
        await asyncio.sleep(0.2)
        os.kill(core.pid, end)
        results = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 30)
        with pytest.raises(UnavailableError, match="ended"):
            core.check(60)
        with pytest.raises(UnavailableError):
            await collect(core, ask())
        await core.close()
        return list(results)

    results = loop.run(scenario())
    assert len(results) == 6
    assert all(isinstance(one, UnavailableError) for one in results)


def test_a_core_that_cannot_start_says_why(loop: LoopThread, tmp_path: Path) -> None:
    async def scenario() -> None:
        config = BackboneConfig(name="tiny", folder=tmp_path / "none")
        core = CoreClient(config, serve_config(tmp_path).engine, tmp_path / "store")
        await core.start(timeout_s=200)

    with pytest.raises(NotFoundError, match=r"config\.json"):
        loop.run(scenario())


PARENT = """
import asyncio, os, signal, sys
from pathlib import Path
from serving.config import BackboneConfig, EngineSection
from serving.core.client import CoreClient

async def main():
    config = BackboneConfig(name="tiny", folder=Path(sys.argv[1]))
    core = CoreClient(config, EngineSection(), Path(sys.argv[2]))
    await core.start(200)
    print(core.pid, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main())
"""


def test_the_core_ends_with_its_parent(byte_t5: Backbone, store: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(byte_t5.folder), str(store)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    parent = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=False)
    assert parent.returncode == -signal.SIGKILL
    pid, deadline = int(parent.stdout), time.monotonic() + 30
    while is_core(pid):
        assert time.monotonic() < deadline, f"core {pid} outlived its parent"
        time.sleep(0.1)


def is_core(pid: int) -> bool:
    try:
        return b"serving.core" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except FileNotFoundError:
        return False


def test_closing_and_submitting_never_wait_for_a_core_that_is_gone(
    loop: LoopThread, byte_t5: Backbone, tmp_path: Path
) -> None:
    async def scenario() -> None:
        config = BackboneConfig(name="tiny", folder=byte_t5.folder)
        core = CoreClient(config, serve_config(tmp_path).engine, tmp_path / "store")
        await core.start(timeout_s=200)
        os.kill(core.pid, signal.SIGKILL)
        request = Request("late", "generate", None, (5, 6, 1), Sampling(max_tokens=4))
        with pytest.raises(UnavailableError):
            async for _ in core.generate(request):
                pass
        await core.close()

    loop.run(scenario())
