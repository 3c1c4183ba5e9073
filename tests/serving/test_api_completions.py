"""``/v1/completions`` and ``/v1/models``, by plain HTTP and by OpenAI's own client."""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest
from live_server import LiveServer
from serve_kit import DEVELOPMENT_KEY

JSON = {"content-type": "application/json"}
TASKS = ("tiny-t5", "acme/upper", "acme/lower", "acme/routed")


@pytest.fixture(scope="module")
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=DEVELOPMENT_KEY, max_retries=0) as made:
        yield made


def ask(http: httpx.Client, model: str, prompt: Any = "hello", **more: Any) -> httpx.Response:
    body = {"model": model, "prompt": prompt, "max_tokens": 8} | more
    return http.post("/v1/completions", json=body)


def text(response: httpx.Response) -> str:
    assert response.status_code == 200, response.text
    found = response.json()["choices"][0]["text"]
    assert isinstance(found, str)
    return found


def num_mixed_steps(server: LiveServer) -> float:
    """Steps in which at least two distinct adapters ran together."""
    name, value = "patchbay_batch_distinct_adapters", server.service.metrics.value
    count = value(f"{name}_count", backbone="tiny-t5")
    return count - value(f"{name}_bucket", backbone="tiny-t5", le="1.0")


def test_each_task_answers_with_its_own_text_and_version(http: httpx.Client) -> None:
    texts = {}
    for task in TASKS:
        response = ask(http, task)
        texts[task] = text(response)
        assert response.json()["model"] == task
        assert response.headers["x-adapter-version"].startswith(task)
        assert "@sha256:" in response.headers["x-adapter-version"]
        usage = {"prompt_tokens": 6, "completion_tokens": 8, "total_tokens": 14}
        assert response.json()["usage"] == usage
    assert len(set(texts.values())) == len(TASKS)


def test_concurrent_tasks_share_steps_and_answer_as_they_do_alone(
    http: httpx.Client, server: LiveServer
) -> None:
    alone = {task: text(ask(http, task, max_tokens=24)) for task in TASKS}
    before = num_mixed_steps(server)
    with ThreadPoolExecutor(12) as pool:
        asked = [task for _ in range(3) for task in TASKS]
        answers = list(pool.map(lambda task: text(ask(http, task, max_tokens=24)), asked))
    assert answers == [alone[task] for task in asked]
    assert num_mixed_steps(server) > before


def test_prompts_may_be_texts_or_token_ids(http: httpx.Client) -> None:
    single = text(ask(http, "acme/upper"))
    ids = [byte + 3 for byte in b"hello"] + [1]
    assert text(ask(http, "acme/upper", ids)) == single
    both = ask(http, "acme/upper", ["hello", "other"]).json()
    assert [one["index"] for one in both["choices"]] == [0, 1]
    assert both["choices"][0]["text"] == single
    assert both["usage"]["prompt_tokens"] == 12
    assert ask(http, "acme/upper", [ids, ids]).json()["choices"][1]["text"] == single


def test_streams_add_up_to_the_whole_answer(http: httpx.Client) -> None:
    whole = text(ask(http, "acme/routed"))
    body = {"model": "acme/routed", "prompt": "hello", "max_tokens": 8, "stream": True}
    body["stream_options"] = {"include_usage": True}
    with http.stream("POST", "/v1/completions", json=body) as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        assert response.headers["x-adapter-version"].startswith("acme/routed:1@sha256:")
        lines = [line for line in response.iter_lines() if line]
    assert lines[-1] == "data: [DONE]"
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-1]]
    assert "".join(c["choices"][0]["text"] for c in chunks[:-1]) == whole
    assert chunks[-2]["choices"][0]["finish_reason"] == "length"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == 8
    assert len({chunk["id"] for chunk in chunks}) == 1


def test_a_stop_string_ends_the_text_before_it(http: httpx.Client) -> None:
    whole = text(ask(http, "acme/upper", max_tokens=12))
    stop = whole[3:5]
    answer = ask(http, "acme/upper", max_tokens=12, stop=[stop]).json()["choices"][0]
    assert answer["text"] == whole[: whole.index(stop)]
    assert answer["finish_reason"] == "stop"
    with http.stream(
        "POST",
        "/v1/completions",
        json={"model": "acme/upper", "prompt": "hello", "stop": stop, "stream": True},
    ) as response:
        lines = [line[6:] for line in response.iter_lines() if line.startswith("data: {")]
    assert "".join(json.loads(one)["choices"][0]["text"] for one in lines) == answer["text"]


def test_sampling_is_repeatable_by_seed_and_differs_between_outputs(http: httpx.Client) -> None:
    more = {"temperature": 9, "seed": 7, "n": 3, "max_tokens": 16}
    first, second = (ask(http, "tiny-t5", **more).json()["choices"] for _ in range(2))
    assert [one["text"] for one in first] == [one["text"] for one in second]
    assert len({one["text"] for one in first}) == 3


def test_logprobs_and_echo(http: httpx.Client) -> None:
    logprobs = ask(http, "acme/upper", logprobs=2).json()["choices"][0]["logprobs"]
    assert len(logprobs["tokens"]) == len(logprobs["token_logprobs"]) == 8
    assert all(value <= 0 for value in logprobs["token_logprobs"])
    assert [len(one) for one in logprobs["top_logprobs"]] == [2] * 8
    assert logprobs["text_offset"] == list(range(8))
    plain = text(ask(http, "acme/upper"))
    assert text(ask(http, "acme/upper", echo=True)) == "hello" + plain


def test_the_default_length_is_the_tasks_own(http: httpx.Client) -> None:
    body = {"model": "acme/upper", "prompt": "hello"}
    answer = http.post("/v1/completions", json=body).json()
    assert answer["usage"]["completion_tokens"] == 8


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"temperature": -1}, 422, "temperature"),
        ({"n": 0}, 422, "n"),
        ({"prompt": []}, 422, "prompt"),
        ({"prompt": ["a", 1]}, 422, "prompt"),
        ({"prompt": "\ud800"}, 422, "prompt"),
        ({"\ud800": 1}, 422, None),
        ({"stop": ["a"] * 17}, 422, "stop"),
        ({"top_k": 10**30}, 422, "top_k"),
        ({"max_tokens": 10**30}, 422, "max_tokens"),
        ({"stop_token_ids": [10**30]}, 422, "stop_token_ids.0"),
        ({"logit_bias": {str(10**30): 1}}, 422, f"logit_bias.{10**30}"),
        ({"prompt": [400]}, 400, "prompt"),
        ({"prompt": "x" * 300}, 400, "prompt"),
        ({"prompt": ["a"] * 33}, 400, "prompt"),
        ({"best_of": 1, "n": 2}, 422, None),
        ({"best_of": 2, "stream": True}, 422, None),
        ({"num_beams": 2, "n": 3}, 422, None),
        ({"num_beams": 2, "temperature": 1}, 400, "temperature"),
        ({"num_beams": 9}, 400, "num_beams"),
        ({"length_penalty": 2.0}, 422, None),
        ({"early_stopping": True}, 422, None),
        ({"min_p": 2}, 422, "min_p"),
        ({"repetition_penalty": 0}, 422, "repetition_penalty"),
        ({"min_tokens": 9, "max_tokens": 8}, 400, "min_tokens"),
        ({"stop_token_ids": [-1]}, 422, "stop_token_ids.0"),
        ({"logit_bias": {"x": 1}}, 422, "logit_bias.x"),
        ({"logit_bias": {"400": 1}}, 400, "logit_bias"),
        ({"allowed_token_ids": [400]}, 400, "allowed_token_ids"),
        ({"suffix": "tail"}, 422, "suffix"),
        ({"logit_bias": {"5": 101}}, 422, "logit_bias.5"),
        ({"presence_penalty": 2.5}, 422, "presence_penalty"),
        ({"colour": "red"}, 422, "colour"),
        ({"stream_options": {"include_usage": True}}, 422, None),
        ({"max_tokens": 100_000}, 400, "max_tokens"),
        ({"model": "paint/colour"}, 400, "model"),
        ({"model": "acme/skills"}, 404, "model"),
        ({"model": "Not A Name/x"}, 422, None),
    ],
)
def test_bad_requests_say_what_is_wrong(
    http: httpx.Client, changes: dict[str, Any], status: int, param: str | None
) -> None:
    content = json.dumps({"model": "acme/upper", "prompt": "a"} | changes)
    response = http.post("/v1/completions", content=content, headers=JSON)
    assert response.status_code == status, response.text
    body = response.json()
    assert set(body) == {"error", "request_id", "hint"}
    assert set(body["error"]) == {"message", "type", "code", "param"}
    if param is not None:
        assert body["error"]["param"] == param
    assert response.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("model", ["acme/none", "nobody/x", "unknown-backbone", "acme/upper:99"])
def test_an_unknown_task_is_404_and_never_the_backbones_answer(
    http: httpx.Client, model: str
) -> None:
    response = ask(http, model)
    assert response.status_code == 404
    assert "choices" not in response.json()
    assert response.json()["error"]["code"] == "not_found"


def test_openais_client_completes_and_streams(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="acme/upper", prompt="hello", max_tokens=8, temperature=0
    )
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8
    chunks = client.completions.create(
        model="acme/upper", prompt="hello", max_tokens=8, temperature=0, stream=True
    )
    streamed = "".join(chunk.choices[0].text for chunk in chunks)
    assert streamed == answer.choices[0].text


def test_openais_client_lists_models_and_maps_errors(client: openai.OpenAI) -> None:
    listed = {model.id for model in client.models.list()}
    assert {"tiny-t5", "tiny-bert", "acme/upper", "acme/routed", "paint/colour"} <= listed
    assert "acme/skills" not in listed
    assert client.models.retrieve("acme/upper").owned_by == "acme"
    with pytest.raises(openai.AuthenticationError):
        client.with_options(api_key="pb-wrong").completions.create(model="x/y", prompt="a")


def test_messages_of_bad_fields_name_the_value_and_no_part_of_the_validator(
    http: httpx.Client,
) -> None:
    def message(**changes: Any) -> str:
        body = {"model": "acme/upper", "prompt": "a", **changes}
        answer = http.post("/v1/completions", json=body)
        return str(answer.json()["error"]["message"])

    assert message(n=0) == "n: Input should be greater than or equal to 1, found 0"
    assert message(n=3, best_of=2) == "best_of must be at least n"
    assert message(logit_bias={"400": 1}) == (
        "logit_bias names token 400, outside the vocabulary of 384"
    )
    assert message(stop=5).split("; ")[0] == "stop: Input should be a valid string, found 5"
