"""The edge: one envelope for every failure, limits while reading, ids, keys, loopback."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from live_server import LiveServer
from serve_kit import DEVELOPMENT_KEY

from adapters_store.errors import ForbiddenError, UnauthorizedError
from serving.config import KeySection
from serving.tenancy import KeyRing, hash_key, new_key


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "code"),
    [
        ("GET", "/nowhere", {}, 404, "route_not_found"),
        ("GET", "/v1/completions", {}, 405, "method_not_allowed"),
        ("POST", "/v1/completions", {"content": b"{oops"}, 400, "invalid_json"),
        ("POST", "/v1/completions", {"json": {"prompt": "a"}}, 422, "validation_failed"),
        ("POST", "/v1/completions", {"json": [1]}, 422, "validation_failed"),
        ("POST", "/v1/completions", {}, 422, "validation_failed"),
        ("GET", "/v1/tasks?limit=0", {}, 422, "validation_failed"),
        ("GET", "/v1/adapters/acme/none", {}, 404, "not_found"),
        ("GET", "/v1/adapters/acme/upper/versions/x", {}, 422, "validation_failed"),
        ("GET", "/v1/adapters/acme/upper/versions/0", {}, 422, "invalid_name"),
    ],
)
def test_every_failure_has_the_same_envelope(
    http: httpx.Client, method: str, path: str, options: dict[str, object], status: int, code: str
) -> None:
    headers = {"content-type": "application/json", "x-request-id": "mine-1"}
    response = http.request(method, path, headers=headers, **options)  # type: ignore[arg-type]
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error", "request_id", "hint"}
    assert set(body["error"]) == {"message", "type", "code", "param"}
    assert body["error"]["code"] == code
    assert body["request_id"] == "mine-1"
    assert response.headers["x-request-id"] == "mine-1"
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("value", [True, False])
@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/v1/completions", {"prompt": "a", "temperature": ...}, "temperature"),
        ("/v1/completions", {"prompt": "a", "logprobs": ...}, "logprobs"),
        ("/v1/completions", {"prompt": "a", "logit_bias": {"3": ...}}, "logit_bias.3"),
        ("/v1/tasks/acme/upper/predict", {"parameters": {"seed": ...}}, "parameters.seed"),
        ("/v1/adapters", {"bank": "b", "weights": [[[...]]]}, "weights.0.0.0"),
    ],
)
def test_a_boolean_is_no_number(
    http: httpx.Client, path: str, body: dict[str, Any], param: str, value: bool
) -> None:
    text = json.dumps(body, default=lambda _: value)
    needed = {
        "/v1/completions": {"model": "acme/upper"},
        "/v1/adapters": {"name": "acme/x", "signature": {"task": "text2text"}},
    }
    whole = needed.get(path, {"inputs": ["a"]}) | json.loads(text)
    response = http.post(path, json=whole)
    assert response.status_code == 422, response.text
    error = response.json()["error"]
    told = f"{param}: Input should be a number, not a boolean, found {value}"
    assert (error["message"], error["param"]) == (told, param)


def test_one_token_is_not_true_and_a_flag_still_is(http: httpx.Client) -> None:
    body = {"model": "acme/upper", "prompt": "a"}
    assert http.post("/v1/completions", json=body | {"max_tokens": True}).status_code == 422
    answered = http.post("/v1/completions", json=body | {"max_tokens": 1, "ignore_eos": True})
    assert answered.json()["usage"]["completion_tokens"] == 1


def test_a_declared_body_over_the_limit_is_refused_unread(http: httpx.Client) -> None:
    response = http.post("/v1/completions", content=b"x" * 200_001)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "payload_too_large"


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/tasks/acme/upper/predict"])
def test_a_chunked_body_over_the_limit_is_refused_while_it_is_read(
    http: httpx.Client, path: str
) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'{"model": "acme/upper", "prompt": "'
        for _ in range(30):
            yield b"x" * 10_000
        yield b'"}'

    headers = {"content-type": "application/json"}
    response = http.post(path, content=chunks(), headers=headers)
    assert response.status_code == 413
    assert response.json()["error"]["code"] == "payload_too_large"


def test_uploads_have_a_limit_of_their_own(http: httpx.Client) -> None:
    files = {"manifest": b"{}", "data": b"x" * 300_000}
    allowed = http.post("/v1/adapters", data={"name": "up/x"}, files=files)
    assert allowed.status_code == 422
    files["data"] = b"x" * 2_000_001
    assert http.post("/v1/adapters", data={"name": "up/x"}, files=files).status_code == 413


def test_request_ids_are_kept_when_sound_and_made_when_not(http: httpx.Client) -> None:
    assert http.get("/health", headers={"x-request-id": "a-b_1"}).headers["x-request-id"] == "a-b_1"
    made = http.get("/health", headers={"x-request-id": "a b"}).headers["x-request-id"]
    assert made.startswith("req-")
    assert http.get("/health").headers["x-request-id"] != made


def test_development_mode_takes_no_key_or_the_right_one(http: httpx.Client) -> None:
    def listed(authorization: str) -> int:
        return http.get("/v1/models", headers={"authorization": authorization}).status_code

    assert http.get("/v1/models").status_code == 200
    assert listed(f"Bearer {DEVELOPMENT_KEY}") == 200
    assert listed("Bearer wrong") == 401
    assert listed(f"Basic {DEVELOPMENT_KEY}") == 401
    assert listed("Bearer") == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"host": "evil.example:8000"},
    ],
)
def test_development_mode_refuses_what_a_foreign_web_page_sends(
    http: httpx.Client, headers: dict[str, str]
) -> None:
    response = http.get("/v1/models", headers=headers)
    assert response.status_code == 403
    assert response.json()["error"]["code"] == "forbidden"
    assert http.get("/v1/models", headers={"origin": "http://localhost:3000"}).status_code == 200


def test_health_ready_docs_and_schema_answer(http: httpx.Client, server: LiveServer) -> None:
    assert http.get("/health").json() == {"status": "ok"}
    ready = http.get("/ready").json()
    assert set(ready["backbones"]) == {"tiny-t5", "tiny-bert"}
    assert "swagger" in http.get("/docs").text.lower()
    paths = http.get("/openapi.json").json()["paths"]
    assert {
        "/v1/models",
        "/v1/completions",
        "/v1/tasks",
        "/v1/tasks/{tenant}/{name}",
        "/v1/tasks/{tenant}/{name}/predict",
        "/v1/adapters",
        "/v1/adapters/{tenant}/{name}",
        "/v1/adapters/{tenant}/{name}/versions/{number}",
        "/v1/adapters/{tenant}/{name}/aliases/{alias}",
        "/health",
        "/ready",
        "/metrics",
    } <= set(paths)


def test_configured_keys_are_mandatory_scoped_and_bound_to_their_tenant() -> None:
    secret = new_key()
    key = KeySection(hash=hash_key(secret), name="k", tenant="acme", scopes=frozenset({"infer"}))
    ring = KeyRing([key], development_hash=hash_key("dev"))
    with pytest.raises(UnauthorizedError):
        ring.authenticate(None)
    with pytest.raises(UnauthorizedError):
        ring.authenticate("Bearer dev")
    caller = ring.authenticate(f"Bearer {secret}")
    caller.require("infer", "acme")
    with pytest.raises(ForbiddenError, match="scope"):
        caller.require("register", "acme")
    with pytest.raises(ForbiddenError, match="belongs to tenant 'acme'"):
        caller.require("infer", "other")
    assert secret not in key.model_dump_json()
