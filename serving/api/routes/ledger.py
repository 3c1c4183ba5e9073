"""What the registry remembers: history, tags, evaluations, lineage, pins, and the audit log."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Query

from adapters_store.ledger.evaluations import Evaluation
from adapters_store.ledger.pins import MAX_OWNER_CHARACTERS
from serving.api.dependencies import Caller, ServiceOf
from serving.api.schemas import EvaluationBody, PinBody, TagBody

router = APIRouter(prefix="/v1", tags=["Registry"])
At = Annotated[str | None, Query(description="As of this ISO time; UTC without an offset.")]
Owner = Annotated[str, Query(min_length=1, max_length=MAX_OWNER_CHARACTERS)]
_OF = "/adapters/{tenant}/{name}"


def _list(data: Any) -> dict[str, Any]:
    return {"object": "list", "data": data}


@router.get(_OF + "/history", summary="Every move of a name's aliases")
async def get_history(
    tenant: str, name: str, service: ServiceOf, caller: Caller, alias: str | None = None
) -> dict[str, Any]:
    """Oldest first, with actor, reason and the evaluations that a move was based on."""
    caller.require("infer", tenant)
    found = await asyncio.to_thread(service.store.alias_history, f"{tenant}/{name}")
    return _list([move.as_json() for move in found if alias in (None, move.alias)])


@router.get(_OF + "/resolve", summary="What a reference means, now or at a time")
async def resolve_reference(
    tenant: str, name: str, service: ServiceOf, caller: Caller, at: At = None
) -> dict[str, Any]:
    """The version that a reference means; ``name`` may carry a version, alias or digest.

    With ``at`` it is what it meant then, which may be deleted by now.
    """
    caller.require("infer", tenant)
    version = await asyncio.to_thread(service.store.resolve, f"{tenant}/{name}", at=at)
    return version.as_json()


@router.get(_OF + "/lineage", summary="What a version was made from, and what from it")
async def get_lineage(tenant: str, name: str, service: ServiceOf, caller: Caller) -> dict[str, Any]:
    """A key of one tenant is not told the names of other tenants' relatives."""
    caller.require("infer", tenant)
    found = await asyncio.to_thread(service.store.lineage, f"{tenant}/{name}", tenant=caller.tenant)
    return found.as_json()


@router.get(_OF + "/tags", summary="The tags of a name or a version")
async def get_tags(tenant: str, name: str, service: ServiceOf, caller: Caller) -> dict[str, str]:
    """A bare name has tags of its own; ``name`` may carry a version, alias or digest."""
    caller.require("infer", tenant)
    return await asyncio.to_thread(service.store.tags.list, f"{tenant}/{name}")


@router.put(_OF + "/tags/{key}", summary="Set a tag")
async def set_tag(
    tenant: str, name: str, key: str, body: TagBody, service: ServiceOf, caller: Caller
) -> dict[str, str]:
    """Set one tag, replacing its value; answers all of them."""
    caller.require("register", tenant)

    def change() -> dict[str, str]:
        service.store.tags.set(f"{tenant}/{name}", key, body.value, actor=caller.name)
        return service.store.tags.list(f"{tenant}/{name}")

    return await asyncio.to_thread(change)


@router.delete(_OF + "/tags/{key}", summary="Remove a tag")
async def remove_tag(
    tenant: str, name: str, key: str, service: ServiceOf, caller: Caller
) -> dict[str, str]:
    """Remove one tag; answers the rest."""
    caller.require("register", tenant)

    def change() -> dict[str, str]:
        service.store.tags.remove(f"{tenant}/{name}", key, actor=caller.name)
        return service.store.tags.list(f"{tenant}/{name}")

    return await asyncio.to_thread(change)


@router.get(_OF + "/evaluations", summary="The measured numbers of a version")
async def get_evaluations(
    tenant: str, name: str, service: ServiceOf, caller: Caller
) -> dict[str, Any]:
    """Oldest first; ``name`` may carry a version, alias or digest."""
    caller.require("infer", tenant)
    found = await asyncio.to_thread(service.store.evaluations, f"{tenant}/{name}")
    return _list([one.as_json() for one in found])


@router.post(_OF + "/evaluations", status_code=201, summary="Add a measured number")
async def add_evaluation(
    tenant: str, name: str, body: EvaluationBody, service: ServiceOf, caller: Caller
) -> dict[str, Any]:
    """Evaluations are added and never changed; alias moves may name their ids as evidence."""
    caller.require("register", tenant)
    evaluation = Evaluation(**body.model_dump())
    record = await asyncio.to_thread(
        service.store.add_evaluation, f"{tenant}/{name}", evaluation, actor=caller.name
    )
    return record.as_json()


@router.get(_OF + "/pins", summary="Who keeps a version's content")
async def get_pins(tenant: str, name: str, service: ServiceOf, caller: Caller) -> dict[str, Any]:
    """Pins of the content that a reference means."""
    caller.require("infer", tenant)

    def read() -> list[dict[str, Any]]:
        digest = service.store.resolve(f"{tenant}/{name}").digest
        return [pin.as_json() for pin in service.store.pins.list(digest=digest)]

    return _list(await asyncio.to_thread(read))


@router.put(_OF + "/pins", summary="Keep a version's content")
async def add_pin(
    tenant: str, name: str, body: PinBody, service: ServiceOf, caller: Caller
) -> dict[str, Any]:
    """Keep the content of a version, whatever is deleted, until ``owner`` lets go."""
    caller.require("register", tenant)
    pin = await asyncio.to_thread(
        service.store.pin, f"{tenant}/{name}", body.owner, body.reason, actor=caller.name
    )
    return pin.as_json()


@router.delete(_OF + "/pins", summary="Let go of a version's content")
async def remove_pin(
    tenant: str, name: str, owner: Owner, service: ServiceOf, caller: Caller
) -> dict[str, Any]:
    """Remove the owner's pin."""
    caller.require("register", tenant)
    await asyncio.to_thread(service.store.unpin, f"{tenant}/{name}", owner, actor=caller.name)
    return {"object": "pin.deleted", "reference": f"{tenant}/{name}", "owner": owner}


@router.get("/audit", summary="The log of every change")
async def get_audit(
    service: ServiceOf,
    caller: Caller,
    tenant: str | None = None,
    type: Annotated[str | None, Query(description="A type, or a pattern like `alias.*`.")] = None,
    after: Annotated[int, Query(ge=0, description="`next` of the page before.")] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> dict[str, Any]:
    """Hash-chained events, oldest first; needs the scope ``admin``.

    ``head`` is the end of the chain: kept elsewhere, it proves what came before it.
    """
    caller.require("admin", tenant)
    of = tenant or caller.tenant

    def read() -> dict[str, Any]:
        events = service.store.audit.events(after=after, limit=limit, tenant=of, type=type)
        following = events[-1].sequence if len(events) == limit else None
        head = service.store.audit.head().as_json()
        return {**_list([one.as_json() for one in events]), "next": following, "head": head}

    return await asyncio.to_thread(read)
