"""The FastAPI application over a service; runs under Ray Serve and under any ASGI server."""

from __future__ import annotations

from fastapi import FastAPI

from serving.api import envelope
from serving.api.edge import Edge
from serving.api.routes import adapters, completions, ledger, models, register, system, tasks
from serving.api.service import Service, product_version

ROUTERS = (
    models.router,
    completions.router,
    tasks.router,
    register.router,
    adapters.router,
    ledger.router,
    system.router,
)


def create_app(service: Service, *, adds_request_id: bool = True) -> FastAPI:
    """The application of a service; starting and closing the service stays with the caller.

    ``adds_request_id`` False is for a proxy in front that puts ``x-request-id`` on responses.
    """
    app = FastAPI(
        title="Patchbay",
        summary="Thousands of fine-tuned tasks from one frozen backbone.",
        version=product_version(),
    )
    app.state.service = service
    app.state.adds_request_id = adds_request_id
    envelope.install(app)
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(
        Edge,
        limits=service.config.limits,
        metrics=service.metrics,
        is_open=service.keys.is_open,
        adds_request_id=adds_request_id,
    )
    return app
