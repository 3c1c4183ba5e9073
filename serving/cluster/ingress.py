"""The one deployment: a replica is the HTTP ingress and owns its engine cores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ray import serve

from serving.config import ServeConfig

if TYPE_CHECKING:
    from fastapi import FastAPI

INGRESS_CPUS = 0.1


@serve.ingress()
class Ingress:
    """One replica. It is ready when every backbone is warm, and unhealthy when a core is gone."""

    async def __init__(self, config: dict[str, Any]) -> None:  # type: ignore[misc]
        from serving.api.service import Service

        replica = serve.get_replica_context().replica_id.unique_id
        self.service = Service(ServeConfig.model_validate(config), replica)
        try:
            await self.service.start()
        except BaseException:
            await self.service.close()
            raise

    def __serve_build_asgi_app__(self) -> FastAPI:
        from serving.api.app import create_app

        return create_app(self.service, adds_request_id=False)

    async def check_health(self) -> None:
        """Raise when a core is gone or stalled; Serve then replaces this replica."""
        self.service.check()

    async def __del__(self) -> None:
        await self.service.close()


def build_app(config: ServeConfig) -> serve.Application:
    """The Serve application of a configuration."""
    deployment = serve.deployment(
        Ingress,
        name="patchbay",
        num_replicas=config.num_replicas,
        max_ongoing_requests=config.max_ongoing_requests,
        ray_actor_options={"num_cpus": INGRESS_CPUS},
        health_check_period_s=config.health_period_s,
        health_check_timeout_s=30,
        graceful_shutdown_timeout_s=config.drain_timeout_s,
        graceful_shutdown_wait_loop_s=0.1,
        max_constructor_retry_count=3,
    )
    return deployment.bind(config.model_dump(mode="json"))
