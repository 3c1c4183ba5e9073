"""Streams: merged in order of arrival, closed when left, errors as status or as last event."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import pytest

from adapters_store.errors import NotFoundError, UnavailableError
from serving.api.merge import merge
from serving.api.prompts import run_all
from serving.api.sse import DONE, stream


class Source:
    """Gives ``items``, then raises ``error`` if there is one; knows whether it was closed."""

    def __init__(self, items: list[Any], error: Exception | None = None, is_endless: bool = False):
        self._items, self._error, self._is_endless = items, error, is_endless
        self.is_closed = False

    async def run(self) -> AsyncGenerator[Any, None]:
        try:
            for item in self._items:
                await asyncio.sleep(0)
                yield item
            if self._error is not None:
                raise self._error
            if self._is_endless:
                await asyncio.Event().wait()
        finally:
            self.is_closed = True


async def body_of(source: Source) -> list[bytes]:
    response = await stream(source.run(), {}, "req-1")
    return [bytes(chunk) async for chunk in response.body_iterator]  # type: ignore[arg-type]


def test_a_stream_ends_with_done() -> None:
    events = asyncio.run(body_of(Source([{"a": 1}, {"b": "é"}])))
    assert events == [b'data: {"a":1}\n\n', 'data: {"b":"é"}\n\n'.encode(), DONE]
    assert asyncio.run(body_of(Source([]))) == [DONE]


def test_an_error_before_the_first_chunk_is_raised_for_its_own_status() -> None:
    with pytest.raises(NotFoundError):
        asyncio.run(body_of(Source([], NotFoundError("no such task"))))


def test_a_later_error_is_the_last_event() -> None:
    source = Source([{"a": 1}], UnavailableError("the core ended"))
    *_, last = asyncio.run(body_of(source))
    body = json.loads(last.removeprefix(b"data: "))
    assert body["error"]["code"] == "unavailable"
    assert body["request_id"] == "req-1"
    assert source.is_closed


def test_a_client_that_leaves_closes_the_source() -> None:
    source = Source([{"a": 1}], is_endless=True)

    async def leave() -> None:
        response = await stream(source.run(), {}, "req-1")

        async def read() -> None:
            async for _ in response.body_iterator:
                pass

        task = asyncio.create_task(read())
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(leave())
    assert source.is_closed


def test_merged_streams_keep_each_ones_order() -> None:
    async def collect() -> list[tuple[int, int]]:
        sources = [Source([1, 2, 3]), Source([4]), Source([])]
        return [item async for item in merge([one.run() for one in sources])]

    merged = asyncio.run(collect())
    assert [item for index, item in merged if index == 0] == [1, 2, 3]
    assert sorted(merged) == [(0, 1), (0, 2), (0, 3), (1, 4)]


def test_one_failure_ends_all_merged_streams() -> None:
    sources = [Source([1], is_endless=True), Source([2], UnavailableError("gone"))]

    async def collect() -> None:
        async with aclosing(merge([one.run() for one in sources])) as merged:
            async for _ in merged:
                pass

    with pytest.raises(UnavailableError):
        asyncio.run(collect())
    assert all(one.is_closed for one in sources)


def test_one_failing_call_cancels_the_others() -> None:
    finished: list[str] = []

    async def slow() -> str:
        try:
            await asyncio.Event().wait()
        finally:
            finished.append("slow")
        return "never"

    async def failing() -> str:
        await asyncio.sleep(0)
        raise NotFoundError("no")

    async def run() -> None:
        await run_all([slow(), failing()])

    with pytest.raises(NotFoundError):
        asyncio.run(run())
    assert finished == ["slow"]
