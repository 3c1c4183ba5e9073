"""Server-sent events."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

from fastapi.responses import StreamingResponse

from adapters_store.errors import PatchbayError
from serving.api.envelope import of_error

DONE = b"data: [DONE]\n\n"


def event(data: dict[str, Any]) -> bytes:
    """One ``data:`` event."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"data: {text}\n\n".encode()


async def stream(
    chunks: AsyncGenerator[dict[str, Any], None], headers: dict[str, str], request_id: str
) -> StreamingResponse:
    """Answer with ``chunks`` as events, closed by ``[DONE]``.

    The first chunk is awaited before the response begins, so that a request which fails at once
    is answered with its own status; a later error is the stream's last event.
    """
    try:
        first = await anext(chunks)
    except StopAsyncIteration:
        return _response(_events(None, chunks, request_id), headers)
    return _response(_events(first, chunks, request_id), headers)


async def _events(
    first: dict[str, Any] | None, chunks: AsyncGenerator[dict[str, Any], None], request_id: str
) -> AsyncIterator[bytes]:
    try:
        if first is not None:
            yield event(first)
        async for chunk in chunks:
            yield event(chunk)
    except PatchbayError as error:
        yield event(of_error(error, request_id))
        return
    finally:
        await chunks.aclose()
    yield DONE


def _response(events: AsyncIterator[bytes], headers: dict[str, str]) -> StreamingResponse:
    return StreamingResponse(
        events,
        media_type="text/event-stream",
        headers={**headers, "cache-control": "no-cache", "x-accel-buffering": "no"},
    )
