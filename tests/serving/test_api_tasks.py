"""``/v1/tasks``: signatures and typed predictions."""

from __future__ import annotations

import json

import httpx
import pytest
from serve_kit import LABELS


def test_a_text_task_gives_one_text_per_input(http: httpx.Client) -> None:
    response = http.post("/v1/tasks/acme/upper/predict", json={"inputs": ["hello", "other"]})
    assert response.status_code == 200, response.text
    body = response.json()
    alone = http.post("/v1/completions", json={"model": "acme/upper", "prompt": "hello"}).json()
    assert body["type"] == "text2text"
    assert body["outputs"][0] == alone["choices"][0]["text"]
    assert len(body["outputs"]) == 2
    assert body["finish_reasons"] == ["length", "length"]
    assert body["usage"] == {"prompt_tokens": 12, "completion_tokens": 16, "total_tokens": 28}
    assert body["version"] == response.headers["x-adapter-version"]


def test_parameters_reach_the_sampler(http: httpx.Client) -> None:
    body = {"inputs": ["hello"], "parameters": {"max_tokens": 3}}
    answer = http.post("/v1/tasks/acme/upper/predict", json=body).json()
    assert len(answer["outputs"][0]) == 3


def test_a_classifier_gives_a_label_and_the_score_of_every_label(http: httpx.Client) -> None:
    inputs = ["the sky is blue", "grass", "fire is red red red"]
    answer = http.post("/v1/tasks/paint/colour/predict", json={"inputs": inputs}).json()
    assert answer["type"] == "classification"
    for output in answer["outputs"]:
        assert tuple(output["scores"]) == LABELS
        assert sum(output["scores"].values()) == pytest.approx(1)
        assert output["label"] == max(output["scores"], key=output["scores"].get)
    singles = [
        http.post("/v1/tasks/paint/colour/predict", json={"inputs": [one]}).json()["outputs"][0]
        for one in inputs
    ]
    for together, alone in zip(answer["outputs"], singles, strict=True):
        assert list(together["scores"].values()) == pytest.approx(
            list(alone["scores"].values()), abs=1e-5
        )


def test_tasks_are_listed_with_their_signatures_by_page(http: httpx.Client) -> None:
    names, after = [], None
    while True:
        query = {"limit": "2"} | ({} if after is None else {"after": after})
        page = http.get("/v1/tasks", params=query).json()
        names += [one["task"] for one in page["data"]]
        after = page["next"]
        if after is None:
            break
    assert {"acme/lower", "acme/routed", "acme/upper", "paint/colour"} <= set(names)
    assert "acme/skills" not in names
    assert len(names) == len(set(names))
    task = http.get("/v1/tasks/paint/colour").json()
    assert task["signature"]["labels"] == list(LABELS)
    assert task["type"] == "classification"


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/tasks/acme/none/predict", {"inputs": ["a"]}, 404),
        ("/v1/tasks/acme/skills/predict", {"inputs": ["a"]}, 404),
        ("/v1/tasks/acme/upper/predict", {"inputs": []}, 422),
        ("/v1/tasks/acme/upper/predict", {"inputs": ["\ud800"]}, 422),
        ("/v1/tasks/acme/upper/predict", {"inputs": ["x" * 500]}, 400),
        ("/v1/tasks/acme/upper/predict", {"inputs": ["a"], "parameters": {"heat": 1}}, 422),
        ("/v1/tasks/acme/upper:1/predict", {"inputs": ["a"]}, 200),
        ("/v1/tasks/acme/upper@prod/predict", {"inputs": ["a"]}, 200),
        ("/v1/tasks/acme/upper@canary/predict", {"inputs": ["a"]}, 404),
    ],
)
def test_predict_follows_references_and_refuses_the_rest(
    http: httpx.Client, path: str, body: dict[str, object], status: int
) -> None:
    headers = {"content-type": "application/json"}
    assert http.post(path, content=json.dumps(body), headers=headers).status_code == status


def test_parameters_of_writing_are_refused_where_nothing_is_written(http: httpx.Client) -> None:
    body = {"inputs": ["a"], "parameters": {"temperature": 1, "max_tokens": 3}}
    answer = http.post("/v1/tasks/paint/colour/predict", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == "parameters"
    assert "found max_tokens, temperature" in answer.json()["error"]["message"]
    assert http.post("/v1/tasks/paint/colour/predict", json={**body, "parameters": {}}).is_success


def test_a_long_input_is_named_as_the_callers_field(http: httpx.Client) -> None:
    answer = http.post("/v1/tasks/acme/upper/predict", json={"inputs": ["x" * 500]})
    assert answer.json()["error"]["param"] == "inputs"
