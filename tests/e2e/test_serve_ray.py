"""The whole system over HTTP through a real local Ray Serve."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import openai
import pytest
from serve_kit import fill_store, save_byte_t5, save_word_bert, text_adapter
from served_command import ServedCommand

from adapters_store.backbone import Backbone
from adapters_store.store import Store

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]
TASKS = ("tiny-t5", "acme/upper", "acme/lower", "acme/routed", "up/live")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("e2e")
    t5 = Backbone.from_folder(save_byte_t5(folder / "tiny-t5"))
    bert = Backbone.from_folder(save_word_bert(folder / "tiny-bert"))
    fill_store(folder / "store", t5, bert)
    return folder


def serve(folder: Path, *names: str) -> ServedCommand:
    backbones = [f"--backbone={folder / name}" for name in names]
    return ServedCommand("--store", str(folder / "store"), *backbones)


@pytest.fixture(scope="module")
def served(folder: Path) -> Iterator[ServedCommand]:
    with serve(folder, "tiny-t5", "tiny-bert") as command:
        yield command


def ask(http: httpx.Client, model: str, max_tokens: int = 24) -> httpx.Response:
    body = {"model": model, "prompt": "hello", "max_tokens": max_tokens}
    return http.post("/v1/completions", json=body)


def text(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    return str(response.json()["choices"][0]["text"])


def sample(http: httpx.Client, line: str) -> float:
    """Sum over replicas of the samples whose name and labels match a regular expression."""
    found = re.findall(rf"^{line} (\S+)$", http.get("/metrics").text, re.MULTILINE)
    return sum(float(value) for value in found)


def wait_until(condition: Callable[[], bool], timeout_s: float, what: str) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s: {what}"
        time.sleep(0.25)


def is_healthy(http: httpx.Client) -> bool:
    try:
        return http.get("/health").status_code == 200
    except httpx.TransportError:
        return False


def test_a_published_adapter_answers_while_serving(served: ServedCommand, folder: Path) -> None:
    http = served.http
    assert ask(http, "up/live").status_code == 404
    artefact = text_adapter(Backbone.from_folder(folder / "tiny-t5"), 77)
    made = http.post(
        "/v1/adapters",
        data={"name": "up/live"},
        files={"manifest": artefact.manifest.canonical, "data": artefact.data},
    )
    assert made.status_code == 201, made.text
    response = ask(http, "up/live")
    assert text(response)
    assert response.headers["x-adapter-version"] == made.json()["reference"]
    with Store.open(folder / "store") as store:
        assert store.resolve("up/live").digest == artefact.digest


def test_concurrent_tasks_share_steps_and_answer_as_alone(served: ServedCommand) -> None:
    alone = {task: text(ask(served.http, task)) for task in TASKS}
    assert len(set(alone.values())) == len(TASKS)
    with ThreadPoolExecutor(20) as pool:
        asked = [task for _ in range(4) for task in TASKS]
        answers = list(pool.map(lambda task: text(ask(served.http, task)), asked))
    assert answers == [alone[task] for task in asked]
    steps = r'patchbay_batch_distinct_adapters_%s\{backbone="tiny-t5",%sreplica="[^"]+"\}'
    wait_until(
        lambda: (
            sample(served.http, steps % ("count", ""))
            > sample(served.http, steps % ("bucket", r'le="2\.0",'))
        ),
        10,
        "a step with more than two distinct tasks in /metrics",
    )


def test_classification_streams_and_openais_client(served: ServedCommand) -> None:
    body = {"inputs": ["the sky is blue", "grass"]}
    answer = served.http.post("/v1/tasks/paint/colour/predict", json=body).json()
    assert [sorted(one["scores"]) for one in answer["outputs"]] == [["blue", "green", "red"]] * 2
    whole = text(ask(served.http, "acme/routed"))
    with openai.OpenAI(base_url=f"{served.url}/v1", api_key=served.key, max_retries=0) as client:
        assert "acme/upper" in {model.id for model in client.models.list()}
        chunks = client.completions.create(
            model="acme/routed", prompt="hello", max_tokens=24, stream=True
        )
        assert "".join(chunk.choices[0].text for chunk in chunks) == whole


def test_a_client_that_leaves_frees_its_row(served: ServedCommand) -> None:
    running = r'patchbay_rows_running\{backbone="tiny-t5",[^}]*\}'
    written = r'patchbay_tokens_total\{backbone="tiny-t5",direction="output",[^}]*\}'
    before = sample(served.http, written)
    body = {"model": "acme/upper", "prompt": "hello", "max_tokens": 2000, "stream": True}
    with served.http.stream("POST", "/v1/completions", json=body) as response:
        assert next(response.iter_lines()).startswith("data: {")
    wait_until(
        lambda: sample(served.http, written) > before and sample(served.http, running) == 0,
        30,
        "the row of a client that left is cancelled",
    )
    assert sample(served.http, written) < before + 2000


def test_errors_are_typed_through_the_proxy(served: ServedCommand) -> None:
    for path, status in (("/v1/nothing", 404), ("/v1/tasks/acme/none", 404)):
        response = served.http.get(path, headers={"x-request-id": "e2e-1"})
        assert response.status_code == status
        assert response.json()["request_id"] == "e2e-1"
        assert response.headers.get_list("x-request-id") == ["e2e-1"]
    big = served.http.post("/v1/completions", content=b"x" * (5 * 2**20))
    assert big.status_code == 413
    wrong = served.http.get("/v1/models", headers={"authorization": "Bearer wrong"})
    assert wrong.status_code == 401


def test_aliases_move_and_deleted_tasks_answer_410(served: ServedCommand, folder: Path) -> None:
    http = served.http
    backbone = Backbone.from_folder(folder / "tiny-t5")
    with Store.open(folder / "store") as store:
        for seed in (81, 82):
            store.publish("up/moving", text_adapter(backbone, seed))
        newest = text(ask(http, "up/moving"))
        assert newest == text(ask(http, "up/moving:2"))
        alias = "/v1/adapters/up/moving/aliases/prod"
        moved = http.put(alias, json={"version": 1, "expected_version": 2})
        assert moved.status_code == 200
        assert text(ask(http, "up/moving")) == text(ask(http, "up/moving:1")) != newest
        assert http.delete("/v1/adapters/up/moving").status_code == 200
        assert ask(http, "up/moving").status_code == 410
        store.restore("up/moving")
    assert ask(http, "up/moving").status_code == 200


def test_a_dead_core_fails_health_and_its_replica_is_replaced(served: ServedCommand) -> None:
    assert is_healthy(served.http)
    before = served.cores()
    assert len(before) == 2
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not is_healthy(served.http), 60, "/health fails")
    wait_until(lambda: is_healthy(served.http), 280, "/health recovers")
    assert text(ask(served.http, "acme/upper"))
    assert not before & served.cores()


def test_after_a_restart_on_the_same_store_everything_is_there(
    served: ServedCommand, folder: Path
) -> None:
    before = {task: ask(served.http, task) for task in TASKS}
    cores = served.cores()
    assert served.stop() == 130
    assert not any(Path(f"/proc/{pid}").exists() for pid in cores)
    with serve(folder, "tiny-t5") as again:
        for task, response in before.items():
            now = ask(again.http, task)
            assert text(now) == text(response)
            assert now.headers["x-adapter-version"] == response.headers["x-adapter-version"]
        assert again.stop() == 130
