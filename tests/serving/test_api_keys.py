"""Configured keys over HTTP: mandatory, scoped, and bound to their tenant."""

from __future__ import annotations

import copy

import httpx
import pytest
from live_server import LiveServer

from serving.api.app import create_app
from serving.config import KeySection
from serving.tenancy import KeyRing, hash_key

COMPLETION = {"prompt": "hello", "max_tokens": 2}
KEYS = [
    KeySection(hash=hash_key("acme-infer"), tenant="acme", scopes=frozenset({"infer"})),
    KeySection(hash=hash_key("acme-write"), tenant="acme", scopes=frozenset({"register"})),
    KeySection(hash=hash_key("root"), scopes=frozenset({"admin"})),
]


def call(
    server: LiveServer, key: str | None, method: str, path: str, json: object = None
) -> httpx.Response:
    """One request to an application with configured keys over the shared cores."""
    service = copy.copy(server.service)
    service.keys = KeyRing(KEYS)

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(create_app(service))
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        async with httpx.AsyncClient(
            transport=transport, base_url="http://models.example.org", headers=headers
        ) as client:
            return await client.request(method, path, json=json)

    return server.run(send())


@pytest.mark.parametrize(
    ("key", "model", "status"),
    [
        (None, "acme/upper", 401),
        ("nonsense", "acme/upper", 401),
        ("acme-infer", "acme/upper", 200),
        ("acme-infer", "tiny-t5", 200),
        ("acme-infer", "up/anything", 403),
        ("acme-write", "acme/upper", 403),
        ("root", "acme/upper", 200),
    ],
)
def test_inference_needs_a_key_of_the_tenant_with_the_scope(
    server: LiveServer, key: str | None, model: str, status: int
) -> None:
    response = call(server, key, "POST", "/v1/completions", COMPLETION | {"model": model})
    assert response.status_code == status, response.text
    if status == 401:
        assert response.headers["www-authenticate"] == "Bearer"


def test_another_tenants_name_is_refused_whether_or_not_it_exists(server: LiveServer) -> None:
    answers = [
        call(server, "acme-infer", "POST", f"/v1/tasks/paint/{name}/predict", {"inputs": ["a"]})
        for name in ("colour", "nothing")
    ]
    assert [one.status_code for one in answers] == [403, 403]
    assert answers[0].json()["error"] == answers[1].json()["error"]


@pytest.mark.parametrize(
    ("key", "method", "path", "status"),
    [
        ("acme-infer", "DELETE", "/v1/adapters/acme/none", 403),
        ("acme-write", "DELETE", "/v1/adapters/acme/none", 404),
        ("acme-write", "DELETE", "/v1/adapters/paint/colour", 403),
        ("acme-infer", "GET", "/v1/adapters/paint/colour", 403),
        ("acme-infer", "GET", "/v1/adapters?tenant=paint", 403),
        ("root", "GET", "/v1/adapters/paint/colour", 200),
        (None, "GET", "/health", 200),
        (None, "GET", "/ready", 200),
    ],
)
def test_changes_need_the_register_scope(
    server: LiveServer, key: str | None, method: str, path: str, status: int
) -> None:
    assert call(server, key, method, path).status_code == status


def test_listings_show_the_keys_tenant_alone(server: LiveServer) -> None:
    models = call(server, "acme-infer", "GET", "/v1/models").json()["data"]
    assert {one["owned_by"] for one in models} == {"patchbay", "acme"}
    tasks = call(server, "acme-infer", "GET", "/v1/tasks").json()["data"]
    assert {one["task"].partition("/")[0] for one in tasks} == {"acme"}
