"""``GET /v1/models``: backbones and tasks in OpenAI's form."""

from __future__ import annotations

import asyncio
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Query

from adapters_store.records import Version
from serving.api.dependencies import Caller, ServiceOf, resolve_for
from serving.api.resolver import Target
from serving.api.served import ServedBackbone

router = APIRouter(tags=["OpenAI"])


@router.get("/v1/models", summary="List backbones and tasks")
async def list_models(
    service: ServiceOf,
    caller: Caller,
    limit: Annotated[int, Query(ge=1, le=10_000)] = 1000,
    after: Annotated[str | None, Query(description="The last task of the page before.")] = None,
) -> dict[str, Any]:
    """Every served backbone, then the tasks that the caller may use, by name."""
    caller.require("infer")
    served = service.resolver.served
    fingerprints = {one.fingerprint for one in served}
    versions = await asyncio.to_thread(service.store.list, caller.tenant, limit=limit, after=after)
    tasks = [one for one in versions if one.kind != "bank" and one.backbone in fingerprints]
    data = [_backbone(one) for one in served] if after is None else []
    data += [_task(one, one.full_name) for one in tasks]
    return {
        "object": "list",
        "data": data,
        "has_more": len(versions) == limit,
        "last_id": versions[-1].full_name if versions else None,
    }


@router.get("/v1/models/{model:path}", summary="One backbone or task")
async def get_model(model: str, service: ServiceOf, caller: Caller) -> dict[str, Any]:
    """What a reference means now."""
    target: Target = await resolve_for(service, caller, model)
    if target.version is None:
        return _backbone(target.served)
    return {**_task(target.version, model), "reference": target.resolved}


def _backbone(served: ServedBackbone) -> dict[str, Any]:
    return {
        "id": served.name,
        "object": "model",
        "created": 0,
        "owned_by": "patchbay",
        "fingerprint": served.fingerprint,
    }


def _task(version: Version, name: str) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": int(datetime.fromisoformat(version.created_at).timestamp()),
        "owned_by": version.tenant,
        "reference": version.reference,
    }
