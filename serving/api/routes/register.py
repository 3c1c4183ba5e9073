"""``POST /v1/adapters``: register an artefact while serving."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile

from adapters_store.artefact import Artefact
from adapters_store.canonical import strict_json
from adapters_store.errors import InvalidArtefactError, UsageError
from adapters_store.limits import DEFAULT_LIMITS
from adapters_store.names import parse_name
from adapters_store.records import Version
from serving.api.dependencies import Caller, ServiceOf
from serving.api.registering import from_routing, from_source, from_upload
from serving.api.routes.adapters import created
from serving.api.schemas import RoutingBody, SourceBody
from serving.api.service import Service
from serving.tenancy import Principal

router = APIRouter(tags=["Adapters"])
Body = TypeVar("Body", bound=BaseModel)
DEFAULT_ALIASES = ["prod"]

_CONTENT: dict[str, Any] = {
    "multipart/form-data": {
        "schema": {
            "type": "object",
            "required": ["name", "manifest", "data"],
            "properties": {
                "name": {"type": "string", "description": "tenant/name"},
                "aliases": {"type": "array", "items": {"type": "string"}, "default": ["prod"]},
                "manifest": {"type": "string", "format": "binary"},
                "data": {"type": "string", "format": "binary"},
            },
        }
    },
    "application/json": {
        "schema": {"oneOf": [SourceBody.model_json_schema(), RoutingBody.model_json_schema()]}
    },
}


@router.post(
    "/v1/adapters",
    status_code=201,
    summary="Register an adapter, a bank or a routing",
    response_model=None,
    openapi_extra={"requestBody": {"required": True, "content": _CONTENT}},
)
async def register(request: Request, service: ServiceOf, caller: Caller) -> Response:
    """Publish the next version of a name; it answers requests as soon as this returns.

    Multipart: ``name``, ``manifest`` (JSON) and ``data`` (safetensors). JSON: ``source``, a
    file:// URL below the server's source folders, or ``bank`` and ``weights``, a routing vector.
    """
    caller.require("register")
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        version = await _from_form(request, service, caller)
    elif kind == "application/json":
        version = await _from_json(request, service, caller)
    else:
        raise UsageError(
            f"content type {kind!r} is not one of multipart/form-data and application/json"
        )
    return JSONResponse(version.as_json(), 201, created(version))


async def _from_form(request: Request, service: Service, caller: Principal) -> Version:
    async with request.form(max_files=2, max_fields=32) as form:
        known = {"name", "aliases", "manifest", "data"}
        unknown = sorted(set(form) - known)
        if unknown:
            raise UsageError(f"unknown form fields {unknown}; known: {sorted(known)}")
        name = await _part(form, "name", 1000)
        manifest = await _part(form, "manifest", DEFAULT_LIMITS.max_manifest_bytes)
        data = await _part(form, "data", DEFAULT_LIMITS.max_data_bytes)
        aliases = [one for one in form.getlist("aliases") if isinstance(one, str)]
    if "aliases" not in form:
        aliases = DEFAULT_ALIASES
    full_name = name.decode(errors="replace")
    return await _publish(service, caller, full_name, aliases, lambda: from_upload(manifest, data))


async def _part(form: FormData, field: str, max_bytes: int) -> bytes:
    values = form.getlist(field)
    if len(values) != 1:
        raise UsageError(f"expected one form field {field!r}, found {len(values)}", param=field)
    value = values[0]
    data = await value.read(max_bytes + 1) if isinstance(value, UploadFile) else value.encode()
    if len(data) > max_bytes:
        raise InvalidArtefactError(f"form field {field!r} is over {max_bytes} bytes", param=field)
    return data


async def _from_json(request: Request, service: Service, caller: Principal) -> Version:
    document = strict_json(await request.body(), "the body")
    if isinstance(document, dict) and "source" in document:
        source = _parse(SourceBody, document)
        return await _publish(
            service,
            caller,
            source.name,
            source.aliases,
            lambda: from_source(source.source, service.config.sources),
        )
    routing = _parse(RoutingBody, document)
    return await _publish(
        service,
        caller,
        routing.name,
        routing.aliases,
        lambda: from_routing(routing, service.store, service.resolver.served),
    )


async def _publish(
    service: Service,
    caller: Principal,
    name: str,
    aliases: list[str],
    make: Callable[[], Artefact],
) -> Version:
    caller.require("register", parse_name(name).tenant)

    def publish() -> Version:
        return service.store.publish(name, make(), aliases=aliases, actor=caller.name)

    return await asyncio.to_thread(publish)


def _parse(body: type[Body], document: Any) -> Body:
    try:
        return body.model_validate(document)
    except ValidationError as error:
        problems = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(problems) from error
