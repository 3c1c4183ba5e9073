"""The outermost layer of the application: request id, body limit, loopback guard, metrics.

A plain ASGI middleware, so that streams pass through untouched.
"""

from __future__ import annotations

import asyncio
import re
import time
import uuid
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adapters_store.errors import ForbiddenError, PatchbayError
from serving.api.envelope import PayloadTooLargeError, of_error
from serving.config import LimitsSection, is_loopback
from serving.metrics import Metrics

_REQUEST_ID = re.compile(r"[\x21-\x7e]{1,128}")
CLIENT_CLOSED = 499
ARTEFACT_ROUTES = frozenset({"/v1/adapters", "/v1/adapters/inspect"})


class Edge:
    """Wraps the application.

    ``is_open`` (development mode) refuses requests that a web page of another site makes a
    browser send: their Origin or Host is not loopback. ``adds_request_id`` False leaves the
    response header ``x-request-id`` to the proxy in front.
    """

    def __init__(
        self,
        app: ASGIApp,
        limits: LimitsSection,
        metrics: Metrics,
        is_open: bool,
        adds_request_id: bool,
    ) -> None:
        self._app, self._limits, self._metrics, self._is_open = app, limits, metrics, is_open
        self._adds_request_id = adds_request_id

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = time.perf_counter()
        headers = Headers(scope=scope)
        given = headers.get("x-request-id", "")
        request_id = given if _REQUEST_ID.fullmatch(given) else f"req-{uuid.uuid4().hex}"
        state = scope.setdefault("state", {})
        state["request_id"] = request_id
        status, is_started = 500, False

        async def send_with_id(message: Message) -> None:
            nonlocal status, is_started
            if message["type"] == "http.response.start":
                status, is_started = message["status"], True
                if self._adds_request_id:
                    MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            refusal = self._refusal(scope, headers)
            if refusal is not None:
                state["error_code"] = refusal.code
                body = of_error(refusal, request_id)
                response = JSONResponse(body, refusal.status, {"x-should-retry": "false"})
                await response(scope, receive, send_with_id)
            else:
                await self._app(scope, self._limited(scope, receive), send_with_id)
        except asyncio.CancelledError:
            if not is_started:
                status, state["error_code"] = CLIENT_CLOSED, "client_closed"
            raise
        finally:
            self._record(scope, status, time.perf_counter() - started)

    def _refusal(self, scope: Scope, headers: Headers) -> PatchbayError | None:
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > self._limit(scope):
            return self._too_large(scope)
        if self._is_open:
            host, origin = headers.get("host"), headers.get("origin")
            named = (host, None if origin is None else urlsplit(origin).netloc)
            for authority in (one for one in named if one is not None):
                if not is_loopback(urlsplit(f"//{authority}").hostname or ""):
                    return ForbiddenError(
                        f"development mode answers loopback callers alone, not {authority!r}",
                        hint="Configure `keys` to serve other hosts.",
                    )
        return None

    def _limited(self, scope: Scope, receive: Receive) -> Receive:
        limit, size = self._limit(scope), 0

        async def receive_limited() -> Message:
            nonlocal size
            message = await receive()
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                if size > limit:
                    raise self._too_large(scope)
            return message

        return receive_limited

    def _limit(self, scope: Scope) -> int:
        if scope["path"] in ARTEFACT_ROUTES and scope["method"] == "POST":
            return self._limits.max_artefact_bytes
        return self._limits.max_body_bytes

    def _too_large(self, scope: Scope) -> PayloadTooLargeError:
        return PayloadTooLargeError(
            f"the body of {scope['path']} is over its limit of {self._limit(scope)} bytes"
        )

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = scope.get("route")
        path = str(getattr(route, "path", "unmatched"))
        self._metrics.count(
            "patchbay_requests_total", method=_method(scope), route=path, status=str(status)
        )
        self._metrics.observe("patchbay_request_duration_seconds", seconds, route=path)
        if status >= 400:
            code = str(scope.get("state", {}).get("error_code", "internal_error"))
            self._metrics.count("patchbay_rejected_total", code=code)


def _method(scope: Scope) -> str:
    known = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
    return scope["method"] if scope["method"] in known else "other"
