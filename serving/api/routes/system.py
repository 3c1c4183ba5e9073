"""Liveness, readiness and metrics."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import APIRouter, Response

from serving.api.dependencies import ServiceOf
from serving.snapshots import CONTENT_TYPE

router = APIRouter(tags=["System"])


@router.get("/health", summary="Is the replica alive?")
async def health(service: ServiceOf) -> dict[str, str]:
    """200 while the replica and its engine cores are alive, else 503."""
    service.check()
    return {"status": "ok"}


@router.get("/ready", summary="Are the backbones loaded?")
async def ready(service: ServiceOf) -> dict[str, Any]:
    """200 when every backbone is loaded and warm; never depends on a tenant's adapter."""
    service.check()
    backbones = {one.name: one.fingerprint for one in service.resolver.served}
    return {"status": "ready", "backbones": backbones}


@router.get("/metrics", summary="Prometheus metrics of every replica", response_class=Response)
async def metrics(service: ServiceOf) -> Response:
    """Prometheus text; every sample carries the label ``replica``."""
    text = await asyncio.to_thread(service.metrics_text)
    return Response(text, media_type=CONTENT_TYPE)
