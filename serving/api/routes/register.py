"""``POST /v1/adapters`` and ``/v1/adapters/inspect``: artefacts come in while serving."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ValidationError

from adapters_store.canonical import strict_json
from adapters_store.errors import InvalidArtefactError, UsageError
from adapters_store.formats import Source
from adapters_store.formats.rendering import inspection_json
from adapters_store.formats.sources import open_source
from adapters_store.names import parse_name
from adapters_store.records import Version
from serving.api.dependencies import Caller, ServiceOf
from serving.api.registering import Items, from_routing, from_source, inspect_source, publish
from serving.api.routes.adapters import created
from serving.api.routes.register_docs import INSPECT_CONTENT, REGISTER_CONTENT
from serving.api.schemas import ImportFields, InspectBody, RoutingBody, SourceBody, UploadFields
from serving.api.service import Service
from serving.api.uploads import read_upload
from serving.tenancy import Principal

router = APIRouter(tags=["Adapters"])
Body = TypeVar("Body", bound=BaseModel)


@router.post(
    "/v1/adapters",
    status_code=201,
    summary="Register an adapter, a bank or a routing",
    response_model=None,
    openapi_extra={"requestBody": {"required": True, "content": REGISTER_CONTENT}},
)
async def register(request: Request, service: ServiceOf, caller: Caller) -> Response:
    """Publish the next version of a name; it answers requests as soon as this returns.

    Multipart: ``manifest`` and ``data`` of this product's format, or ``config`` and ``data`` of
    another tool's adapter. JSON: ``source``, a file://, s3:// or hf:// address within the server's
    ``sources``, or ``bank`` and ``weights``, a routing vector. A checkpoint of several artefacts
    answers its last version and lists all of them in ``versions``.
    """
    caller.require("register")
    if _content_type(request) == "multipart/form-data":
        versions = await _from_form(request, service, caller)
    else:
        versions = await _from_json(request, service, caller)
    last = versions[-1]
    body = last.as_json() | {"versions": [version.as_json() for version in versions]}
    return JSONResponse(body, 201, created(last))


@router.post(
    "/v1/adapters/inspect",
    summary="Say whether an adapter can be imported",
    response_model=None,
    openapi_extra={"requestBody": {"required": True, "content": INSPECT_CONTENT}},
)
async def inspect_adapter(request: Request, service: ServiceOf, caller: Caller) -> Response:
    """The verdict from configuration and header alone: the same JSON as ``patchbay adapters
    inspect --json``. A rejection is an answer (200), not a failure."""
    caller.require("register")
    fields: ImportFields
    if _content_type(request) == "multipart/form-data":
        upload = await read_upload(request)
        fields = _parse(ImportFields, upload.fields)
        source: Source = upload.source
    else:
        asked = _parse(InspectBody, await _json(request))
        fields = asked
        source = await asyncio.to_thread(open_source, asked.source, service.config.sources)
    inspection = await asyncio.to_thread(inspect_source, source, fields, service.resolver.served)
    return Response(inspection_json(inspection), media_type="application/json")


async def _from_form(request: Request, service: Service, caller: Principal) -> list[Version]:
    upload = await read_upload(request)
    fields = _parse(UploadFields, upload.fields)
    source, served = upload.source, service.resolver.served
    return await _publish(
        service, caller, fields, lambda: from_source(source, fields.name, fields, served)
    )


async def _from_json(request: Request, service: Service, caller: Principal) -> list[Version]:
    document = await _json(request)
    served = service.resolver.served
    if isinstance(document, dict) and "source" in document:
        asked = _parse(SourceBody, document)

        def read() -> Items:
            source = open_source(asked.source, service.config.sources)
            return from_source(source, asked.name, asked, served)

        return await _publish(service, caller, asked, read)
    routing = _parse(RoutingBody, document)
    return await _publish(
        service, caller, routing, lambda: from_routing(routing, service.store, served)
    )


async def _publish(
    service: Service,
    caller: Principal,
    body: UploadFields | SourceBody | RoutingBody,
    make: Callable[[], Items],
) -> list[Version]:
    caller.require("register", parse_name(body.name).tenant)
    signature = body.manifest_signature if isinstance(body, RoutingBody) else body.signature
    return await asyncio.to_thread(
        publish, service, caller, body.name, body.aliases, signature, make
    )


async def _json(request: Request) -> Any:
    try:
        return strict_json(await request.body(), "the body")
    except InvalidArtefactError as error:
        hint = "The schema of this route is at /docs and /openapi.json."
        raise UsageError(error.message, hint=hint) from error


def _content_type(request: Request) -> str:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in ("multipart/form-data", "application/json"):
        raise UsageError(
            f"content type {kind!r} is not one of multipart/form-data and application/json"
        )
    return kind


def _parse(body: type[Body], document: Any) -> Body:
    try:
        return body.model_validate(document)
    except ValidationError as error:
        problems = [{**one, "loc": ("body", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(problems) from error
