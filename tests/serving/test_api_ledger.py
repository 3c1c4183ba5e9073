"""What the registry remembers, over HTTP: history, tags, evaluations, lineage, pins, audit."""

from __future__ import annotations

import httpx
from live_server import LiveServer
from serve_kit import text_adapter
from test_api_adapters import upload
from test_api_keys import call

from adapters_store.backbone import Backbone


def test_history_and_resolution_follow_an_alias(http: httpx.Client, byte_t5: Backbone) -> None:
    for seed in (61, 62):
        assert upload(http, "mem/moves", text_adapter(byte_t5, seed)).status_code == 201
    url = "/v1/adapters/mem/moves"
    http.put(f"{url}/aliases/canary", json={"version": 1, "reason": "try"})
    moves = http.get(f"{url}/history").json()["data"]
    assert [(one["alias"], one["to_version"]) for one in moves] == [
        ("prod", 1), ("prod", 2), ("canary", 1)
    ]  # fmt: skip
    only = http.get(f"{url}/history", params={"alias": "canary"}).json()["data"]
    assert [(one["reason"], one["actor"]) for one in only] == [("try", "development")]
    assert http.get(f"{url}/resolve").json()["version"] == 2
    assert http.get(f"{url}@canary/resolve").json()["version"] == 1
    assert http.get(f"{url}:1/resolve").json()["version"] == 1
    digest = http.get(f"{url}/resolve").json()["digest"]
    assert http.get(f"{url}@{digest}/resolve").json()["version"] == 2
    then = http.get(f"{url}/resolve", params={"at": moves[0]["at"]})
    assert then.json()["version"] == 1
    assert http.get(f"{url}/resolve", params={"at": "2001-01-01"}).status_code == 404
    assert http.get(f"{url}/resolve", params={"at": "soon"}).status_code == 400
    assert http.get("/v1/adapters/mem/none/history").status_code == 404
    stale = http.delete(f"{url}/aliases/canary", params={"expected_version": 2})
    assert stale.status_code == 409
    assert http.delete(f"{url}/aliases/canary", params={"reason": "done"}).status_code == 200
    assert http.get(f"{url}@canary/resolve").status_code == 404
    assert http.delete(f"{url}/aliases/canary").status_code == 404


def test_tags_of_a_name_and_of_a_version_stand_apart(http: httpx.Client, byte_t5: Backbone) -> None:
    upload(http, "mem/tagged", text_adapter(byte_t5, 63))
    url = "/v1/adapters/mem/tagged"
    assert http.put(f"{url}/tags/team", json={"value": "search"}).json() == {"team": "search"}
    assert http.put(f"{url}:1/tags/stage", json={"value": "new"}).json() == {"stage": "new"}
    assert http.get(f"{url}/tags").json() == {"team": "search"}
    assert http.get(f"{url}@prod/tags").json() == {"stage": "new"}
    listed = http.get("/v1/adapters", params={"tag": "team=search"}).json()["data"]
    assert [one["name"] for one in listed] == ["tagged"]
    assert http.delete(f"{url}/tags/team").json() == {}
    assert http.delete(f"{url}/tags/team").status_code == 404
    assert http.put(f"{url}/tags/Team", json={"value": "x"}).status_code == 422


def test_evaluations_are_added_and_speak_for_alias_moves(
    http: httpx.Client, byte_t5: Backbone
) -> None:
    upload(http, "mem/scored", text_adapter(byte_t5, 64))
    url = "/v1/adapters/mem/scored"
    body = {"metric": "exact_match", "value": 0.75, "num_examples": 100, "seed": 3}
    made = http.post(f"{url}/evaluations", json=body)
    assert made.status_code == 201, made.text
    assert made.json().items() >= body.items()
    assert http.get(f"{url}/evaluations").json()["data"] == [made.json()]
    move = {"version": 1, "evidence": [made.json()["id"]]}
    assert http.put(f"{url}/aliases/stable", json=move).status_code == 200
    (stable,) = http.get(f"{url}/history", params={"alias": "stable"}).json()["data"]
    assert stable["evidence"] == [made.json()["id"]]
    assert http.put(f"{url}/aliases/stable", json=move | {"evidence": [10**6]}).status_code == 404
    for wrong in ({"metric": "x"}, {"metric": "", "value": 1.0}, body | {"seed": 1.5}):
        assert http.post(f"{url}/evaluations", json=wrong).status_code in (400, 422)


def test_lineage_names_the_bank_and_what_routes_over_it(http: httpx.Client) -> None:
    routed = http.get("/v1/adapters/acme/routed/lineage").json()
    bank = http.get("/v1/adapters/acme/skills/lineage").json()
    assert routed["bank"] == bank["digest"]
    assert [one["relation"] for one in routed["ancestors"]] == ["bank"]
    assert routed["digest"] in [one["digest"] for one in bank["children"]]


def test_pins_keep_content_until_their_owner_lets_go(http: httpx.Client, byte_t5: Backbone) -> None:
    upload(http, "mem/pinned", text_adapter(byte_t5, 65))
    url = "/v1/adapters/mem/pinned/pins"
    pin = http.put(url, json={"owner": "release 7", "reason": "audit"}).json()
    assert http.get(url).json()["data"] == [pin]
    assert http.put(url, json={"owner": "release 7", "reason": "other"}).status_code == 409
    assert http.delete(url, params={"owner": "nobody"}).status_code == 404
    assert http.delete(url, params={"owner": "release 7"}).status_code == 200
    assert http.get(url).json()["data"] == []


def test_the_audit_log_is_read_page_by_page(
    http: httpx.Client, byte_t5: Backbone, server: LiveServer
) -> None:
    upload(http, "mem/audited", text_adapter(byte_t5, 66))
    first = http.get("/v1/audit", params={"limit": 1}).json()
    assert first["next"] == first["data"][0]["sequence"] == 1
    assert first["head"] == server.service.store.audit.head().as_json()
    page = http.get(
        "/v1/audit", params={"tenant": "mem", "type": "alias.set", "limit": 1000}
    ).json()
    assert page["next"] is None
    assert {one["type"] for one in page["data"]} == {"alias.set"}
    assert {one["subject"]["tenant"] for one in page["data"]} == {"mem"}
    assert http.get("/v1/audit", params={"type": "nonsense"}).status_code == 400


def test_scopes_guard_what_is_remembered(server: LiveServer) -> None:
    path = "/v1/adapters/acme/upper"
    assert call(server, "acme-infer", "GET", f"{path}/history").status_code == 200
    assert call(server, "acme-write", "GET", f"{path}/history").status_code == 403
    assert call(server, None, "GET", f"{path}/history").status_code == 401
    for method, place, body in (
        ("PUT", "tags/x", {"value": "y"}),
        ("DELETE", "tags/x", None),
        ("POST", "evaluations", {"metric": "m", "value": 1.0}),
        ("PUT", "pins", {"owner": "o"}),
    ):
        refused = call(server, "acme-infer", method, f"{path}/{place}", body)
        assert refused.status_code == 403, refused.text
        other = call(server, "acme-write", method, f"/v1/adapters/up/x/{place}", body)
        assert other.status_code == 403, other.text
    for key in ("acme-infer", "acme-write"):
        assert call(server, key, "GET", "/v1/audit").status_code == 403
    assert call(server, "root", "GET", "/v1/audit").status_code == 200
    for key, status in (("acme-infer", 403), ("acme-write", 400), (None, 401)):
        assert call(server, key, "POST", "/v1/adapters/inspect", {}).status_code in (status, 422)
