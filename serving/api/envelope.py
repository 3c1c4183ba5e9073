"""The error envelope: every failure leaves as the same JSON, whatever raised it."""

from __future__ import annotations

import logging
import re
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from adapters_store.errors import OverloadedError, PatchbayError, UsageError

LOG = logging.getLogger("patchbay.api")

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    410: "not_found_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
    503: "unavailable_error",
}
_RETRYABLE = frozenset({429, 503})
_BRANCH = re.compile(r"(constrained-)?str|bool|\[key\]|(list|literal)\[.*\]")
_HINTS = {
    404: "See /docs for the routes of this server.",
    405: "See /docs for the methods of this route.",
    400: "The body must be valid for the route; see /docs.",
}


class PayloadTooLargeError(UsageError):
    """A request body over the limit; found while it was being read."""

    code = "payload_too_large"
    status = 413
    default_hint = "Send less at once, or raise the limit in the server's configuration."


class ClientLeftError(PatchbayError):
    """The connection closed before the answer was ready; nobody reads this error."""

    code = "client_closed"
    status = 499
    default_hint = "Keep the connection open until the answer has arrived."


class NotAvailableForError(UsageError):
    """A call that this kind of model or task does not answer."""

    code = "wrong_task"
    status = 400
    default_hint = "GET /v1/tasks/{tenant}/{name} tells what the task takes."


def envelope(
    request_id: str, message: str, code: str, status: int, param: str | None, hint: str | None
) -> dict[str, Any]:
    """The JSON body of one error."""
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return {
        "error": {"message": message, "type": kind, "code": code, "param": param},
        "request_id": request_id,
        "hint": hint,
    }


def request_id_of(request: Request) -> str:
    """The id that the request carries from the outermost middleware on."""
    return str(request.scope.get("state", {}).get("request_id", "unknown"))


def of_error(error: PatchbayError, request_id: str) -> dict[str, Any]:
    """The JSON body of a typed error."""
    return envelope(request_id, error.message, error.code, error.status, error.param, error.hint)


def install(app: FastAPI) -> None:
    """Register the handlers of every way in which a request can fail."""
    app.add_exception_handler(PatchbayError, _on_typed)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_unexpected)


async def _on_typed(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, PatchbayError)
    body = of_error(error, request_id_of(request))
    headers = {}
    if isinstance(error, OverloadedError):
        headers["retry-after"] = str(error.retry_after_s)
    elif error.status == 503:
        headers["retry-after"] = "1"
    if error.status == 401:
        headers["www-authenticate"] = "Bearer"
    return _respond(request, body, error.status, headers)


async def _on_invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)
    problems = error.errors()
    first = problems[0]
    if first["type"] == "json_invalid":
        reason = first.get("ctx", {}).get("error", "not JSON")
        body = envelope(
            request_id_of(request),
            f"the body is not JSON: {reason} at position {first['loc'][-1]}",
            "invalid_json",
            400,
            None,
            _HINTS[400],
        )
        return _respond(request, body, 400)
    body = envelope(
        request_id_of(request),
        "; ".join(_told(one) for one in problems[:8]),
        "validation_failed",
        422,
        _place(first) or None,
        "The schema of this route is at /docs and /openapi.json.",
    )
    return _respond(request, body, 422)


def _place(problem: dict[str, Any]) -> str:
    """The field of a problem; what pydantic adds to it for a union or a key is no part of it."""
    head, *rest = [str(part) for part in problem["loc"][1:]] or [""]
    parts = [head, *(part for part in rest if not _BRANCH.fullmatch(part))]
    return ".".join(parts).encode(errors="backslashreplace").decode()


def _told(problem: dict[str, Any]) -> str:
    """A problem as the message tells it: where, what was expected, and what was found."""
    place, reason, found = _place(problem), problem["msg"], problem.get("input")
    if problem["type"] == "value_error":
        reason = reason.removeprefix("Value error, ")
        return f"{place}: {reason}" if place else reason
    is_shown = isinstance(found, str | int | float) and problem["type"] != "extra_forbidden"
    return f"{place or 'body'}: {reason}" + (f", found {found!r:.60}" if is_shown else "")


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, PatchbayError):
        return await _on_typed(request, error.__cause__)
    status = error.status_code
    code = HTTPStatus(status).name.lower()
    message = str(error.detail)
    if status == 404:
        code, message = "route_not_found", f"no route {request.method} {request.url.path}"
    elif status == 405:
        message = f"{request.url.path} does not take {request.method}"
    body = envelope(request_id_of(request), message, code, status, None, _HINTS.get(status))
    return _respond(request, body, status, dict(error.headers or {}))


async def _on_unexpected(request: Request, error: Exception) -> JSONResponse:
    LOG.error("request %s failed", request_id_of(request), exc_info=error)
    body = of_error(PatchbayError("an internal error occurred"), request_id_of(request))
    return _respond(request, body, 500)


def _respond(
    request: Request, body: dict[str, Any], status: int, headers: dict[str, str] | None = None
) -> JSONResponse:
    request.scope.setdefault("state", {})["error_code"] = body["error"]["code"]
    made = dict(headers or {})
    if status == 500 and request.app.state.adds_request_id:
        made["x-request-id"] = body["request_id"]
    if status not in _RETRYABLE and status < 500:
        made["x-should-retry"] = "false"
    return JSONResponse(body, status, made)
