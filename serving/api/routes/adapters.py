"""``/v1/adapters``: list, inspect, alias, delete and restore while serving."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query

from adapters_store.manifest import Kind
from adapters_store.names import parse_reference
from adapters_store.records import Version
from serving.api.dependencies import Caller, ServiceOf
from serving.api.schemas import AliasBody

router = APIRouter(prefix="/v1/adapters", tags=["Adapters"])


@router.get("", summary="List adapters")
async def list_adapters(
    service: ServiceOf,
    caller: Caller,
    tenant: str | None = None,
    kind: Kind | None = None,
    tag: Annotated[str | None, Query(description="`key` or `key=value`.")] = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(description="`next` of the page before.")] = None,
) -> dict[str, Any]:
    """The newest live version of every name, banks too."""
    caller.require("infer", tenant)
    found = await asyncio.to_thread(
        service.store.list, tenant or caller.tenant, kind=kind, limit=limit, after=after, tag=tag
    )
    following = found[-1].full_name if len(found) == limit else None
    return {"object": "list", "data": [one.as_json() for one in found], "next": following}


@router.get("/{tenant}/{name}", summary="One adapter with all its versions")
async def get_adapter(
    tenant: str,
    name: str,
    service: ServiceOf,
    caller: Caller,
    limit: Annotated[int, Query(ge=1, le=1000)] = 1000,
    before: Annotated[int | None, Query(ge=1, description="`next` of the page before.")] = None,
) -> dict[str, Any]:
    """One version and a page of all, newest first; ``name`` takes every form of a reference."""
    caller.require("infer", tenant)
    reference = parse_reference(f"{tenant}/{name}")
    current = await asyncio.to_thread(service.store.resolve, reference)
    versions = await asyncio.to_thread(
        service.store.versions, reference.full_name, limit=limit, before=before
    )
    described = await asyncio.to_thread(describe_version, current)
    following = versions[-1].number if len(versions) == limit else None
    return {**described, "versions": [one.as_json() for one in versions], "next": following}


@router.get("/{tenant}/{name}/versions/{number}", summary="One version")
async def get_version(
    tenant: str, name: str, number: int, service: ServiceOf, caller: Caller
) -> dict[str, Any]:
    """One version with its manifest."""
    caller.require("infer", tenant)
    reference = parse_reference(f"{tenant}/{name}:{number}")
    version = await asyncio.to_thread(service.store.resolve, reference)
    return await asyncio.to_thread(describe_version, version)


@router.put("/{tenant}/{name}/aliases/{alias}", summary="Point an alias at a version")
async def set_alias(
    tenant: str, name: str, alias: str, body: AliasBody, service: ServiceOf, caller: Caller
) -> dict[str, Any]:
    """Compare and set: 409 when ``expected_version`` is not where the alias points now."""
    caller.require("register", tenant)

    def change() -> Version:
        full_name = f"{tenant}/{name}"
        service.store.set_alias(
            full_name,
            alias,
            body.version,
            expected_version=body.expected_version,
            actor=caller.name,
            reason=body.reason,
            evidence=body.evidence,
        )
        return service.store.resolve(f"{full_name}:{body.version}")

    version = await asyncio.to_thread(change)
    return version.as_json()


@router.delete("/{tenant}/{name}/aliases/{alias}", summary="Remove an alias")
async def remove_alias(
    tenant: str,
    name: str,
    alias: str,
    service: ServiceOf,
    caller: Caller,
    expected_version: Annotated[int | None, Query(ge=1)] = None,
    reason: str = "",
) -> dict[str, Any]:
    """Remove an alias; 409 when ``expected_version`` is not where it points now."""
    caller.require("register", tenant)
    await asyncio.to_thread(
        service.store.remove_alias,
        f"{tenant}/{name}",
        alias,
        expected_version=expected_version,
        actor=caller.name,
        reason=reason,
    )
    return {"object": "alias.deleted", "reference": f"{tenant}/{name}@{alias}", "deleted": True}


@router.delete("/{tenant}/{name}", summary="Delete an adapter")
async def delete_adapter(
    tenant: str, name: str, service: ServiceOf, caller: Caller, reason: str = ""
) -> dict[str, Any]:
    """Delete every version of a name; asking for it then answers 410 until it is restored."""
    return await _delete(service, caller, f"{tenant}/{name}", tenant, reason)


@router.delete("/{tenant}/{name}/versions/{number}", summary="Delete one version")
async def delete_version(
    tenant: str, name: str, number: int, service: ServiceOf, caller: Caller, reason: str = ""
) -> dict[str, Any]:
    """Delete one version; 409 while other artefacts need it."""
    return await _delete(service, caller, f"{tenant}/{name}:{number}", tenant, reason)


@router.post("/{tenant}/{name}/restore", summary="Undo a deletion")
async def restore_adapter(
    tenant: str, name: str, service: ServiceOf, caller: Caller
) -> dict[str, Any]:
    """Bring a deleted adapter back; ``name`` may carry the version to restore."""
    caller.require("register", tenant)
    reference = parse_reference(f"{tenant}/{name}")
    await asyncio.to_thread(service.store.restore, reference, actor=caller.name)
    version = await asyncio.to_thread(service.store.resolve, reference)
    return version.as_json()


def describe_version(version: Version) -> dict[str, Any]:
    """A version with its manifest, as JSON."""
    return {**version.as_json(), "manifest": version.manifest.model_dump(mode="json")}


def created(version: Version) -> dict[str, str]:
    """Headers of an answer that made ``version``."""
    return {"x-adapter-version": version.reference, "location": _location(version)}


def _location(version: Version) -> str:
    return f"/v1/adapters/{version.full_name}/versions/{version.number}"


async def _delete(
    service: ServiceOf, caller: Caller, text: str, tenant: str, reason: str
) -> dict[str, Any]:
    caller.require("register", tenant)
    reference = parse_reference(text)
    await asyncio.to_thread(service.store.delete, reference, actor=caller.name, reason=reason)
    return {"object": "adapter.deleted", "reference": str(reference), "deleted": True}
