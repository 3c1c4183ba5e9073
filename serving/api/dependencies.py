"""What routes ask for: the service and the authenticated caller."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import HTTPBearer

from serving.api.resolver import Target
from serving.api.service import Service
from serving.tenancy import Principal, Scope

_BEARER = HTTPBearer(auto_error=False, description="An API key of this server.")


def get_service(request: Request) -> Service:
    """The service that the application was made with."""
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


ServiceOf = Annotated[Service, Depends(get_service)]


def get_caller(
    request: Request, service: ServiceOf, _: Annotated[object, Security(_BEARER)]
) -> Principal:
    """The caller; raises UnauthorizedError for a missing or wrong key."""
    return service.keys.authenticate(request.headers.get("authorization"))


Caller = Annotated[Principal, Depends(get_caller)]


async def resolve_for(
    service: Service, caller: Principal, model: str, scope: Scope = "infer"
) -> Target:
    """Resolve ``model`` for a caller; another tenant's names are refused before any look-up.

    The caller's tenant pays; a key of all tenants lets the adapter's own tenant pay.
    """
    reference = service.resolver.parse(model)
    caller.require(scope, None if reference is None else reference.tenant)
    target = await service.resolver.resolve(model)
    payer = caller.tenant or ("" if target.version is None else target.version.tenant)
    return replace(target, payer=payer)
