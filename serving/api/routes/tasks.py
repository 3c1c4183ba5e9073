"""``/v1/tasks``: tasks by their signatures, and typed predictions."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import JSONResponse

from adapters_store.errors import NotFoundError, UsageError
from adapters_store.manifest import Manifest
from adapters_store.records import Version
from serving.api.completion import usage
from serving.api.dependencies import Caller, ServiceOf, resolve_for
from serving.api.predicting import Prediction, predict_one, writes_text
from serving.api.prompts import check_count, encode_prompt, run_all, while_connected
from serving.api.schemas import PredictBody

router = APIRouter(tags=["Tasks"])


@router.get("/v1/tasks", summary="List tasks with their signatures")
async def list_tasks(
    service: ServiceOf,
    caller: Caller,
    tenant: str | None = None,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[str | None, Query(description="`next` of the page before.")] = None,
) -> dict[str, Any]:
    """Tasks of the served backbones, by name; banks are no tasks."""
    caller.require("infer", tenant)
    chosen = tenant or caller.tenant
    fingerprints = {one.fingerprint for one in service.resolver.served}

    def read() -> tuple[list[dict[str, Any]], str | None]:
        versions = service.store.list(chosen, limit=limit, after=after)
        tasks = [
            describe(one, one.manifest)
            for one in versions
            if one.kind != "bank" and one.backbone in fingerprints
        ]
        return tasks, versions[-1].full_name if len(versions) == limit else None

    data, following = await asyncio.to_thread(read)
    return {"object": "list", "data": data, "next": following}


@router.get("/v1/tasks/{tenant}/{name}", summary="One task's signature")
async def get_task(tenant: str, name: str, service: ServiceOf, caller: Caller) -> dict[str, Any]:
    """Input and output types, labels and prompt template; ``name`` may carry a version or alias."""
    target = await resolve_for(service, caller, f"{tenant}/{name}")
    assert target.version is not None
    assert target.manifest is not None
    return describe(target.version, target.manifest)


@router.post(
    "/v1/tasks/{tenant}/{name}/predict", summary="Answer inputs of a task", response_model=None
)
async def predict(
    tenant: str,
    name: str,
    body: PredictBody,
    request: Request,
    service: ServiceOf,
    caller: Caller,
) -> Response:
    """One output per input, typed by the signature.

    Text tasks give texts and finish reasons, classification gives a label with the score of every
    label, embedding gives vectors.
    """
    started = time.perf_counter()
    target = await resolve_for(service, caller, f"{tenant}/{name}")
    signature = target.signature
    if signature is None:
        raise NotFoundError(f"{target.resolved} has no signature")
    given = sorted(body.parameters.model_fields_set)
    if given and not writes_text(target):
        raise UsageError(
            f"{target.resolved} writes no text and takes no parameters, found {', '.join(given)}",
            hint="Leave out parameters.",
            param="parameters",
        )
    check_count(len(body.inputs), service.config.limits, "inputs")
    prompts = [await encode_prompt(target, text, "inputs") for text in body.inputs]
    calls = [predict_one(service, target, ids, body.parameters, i) for i, ids in enumerate(prompts)]
    predictions: list[Prediction] = await while_connected(request, run_all(calls))
    answer: dict[str, Any] = {
        "object": "prediction",
        "task": target.version.full_name if target.version else "",
        "version": target.resolved,
        "type": signature.task,
        "outputs": [one.output for one in predictions],
        "usage": usage(
            sum(one.num_input_tokens for one in predictions),
            sum(one.num_output_tokens for one in predictions),
        ),
        "duration_s": round(time.perf_counter() - started, 6),
    }
    if any(one.finish_reason for one in predictions):
        answer["finish_reasons"] = [one.finish_reason for one in predictions]
    return JSONResponse(answer, headers=target.headers)


def describe(version: Version, manifest: Manifest) -> dict[str, Any]:
    """A task as listings and ``GET`` show it."""
    signature = manifest.signature
    assert signature is not None
    return {
        "object": "task",
        "task": version.full_name,
        "version": version.reference,
        "aliases": list(version.aliases),
        "kind": version.kind,
        "type": signature.task,
        "signature": signature.model_dump(mode="json"),
    }
