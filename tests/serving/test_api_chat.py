"""``/v1/chat/completions``, by plain HTTP and by OpenAI's own client."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any, cast

import httpx
import openai
import pytest
from live_server import LiveServer
from serve_kit import DEVELOPMENT_KEY
from transformers import ByT5Tokenizer

from adapters_store.backbone import Backbone
from adapters_store.errors import UsageError
from serving.api.chat import encode_chat
from serving.api.resolver import Target
from serving.api.schemas import Message
from serving.api.served import ServedBackbone
from serving.api.text import Tokenizer
from serving.core.client import CoreClient
from serving.engine.defaults import Defaults

USER = [{"role": "user", "content": "hello"}]
TALK = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]},
]
WRITTEN = "system: be brief\nuser: hello\nassistant:"


def ask(http: httpx.Client, **more: Any) -> dict[str, Any]:
    body = {"model": "acme/upper", "messages": USER, "max_tokens": 8} | more
    response = http.post("/v1/chat/completions", json=body)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert isinstance(answer, dict)
    return answer


def complete(http: httpx.Client, prompt: Any, model: str) -> str:
    body = {"model": model, "prompt": prompt, "max_tokens": 8}
    found = http.post("/v1/completions", json=body).json()["choices"][0]["text"]
    assert isinstance(found, str)
    return found


def test_a_task_reads_a_single_message_as_it_reads_a_prompt(http: httpx.Client) -> None:
    choice = ask(http)["choices"][0]
    assert choice["message"]["role"] == "assistant"
    assert choice["message"]["content"] == complete(http, "hello", "acme/upper")
    assert (choice["finish_reason"], choice["logprobs"]) == ("length", None)


@pytest.mark.parametrize("model", ["tiny-t5", "acme/lower"])
def test_a_conversation_goes_through_the_backbones_chat_template(
    http: httpx.Client, model: str
) -> None:
    ids = [byte + 3 for byte in WRITTEN.encode()]
    answer = ask(http, model=model, messages=TALK)
    assert answer["choices"][0]["message"]["content"] == complete(http, ids, model)
    assert answer["usage"]["prompt_tokens"] == len(ids)


def test_log_probabilities_have_the_chats_form(http: httpx.Client) -> None:
    found = ask(http, logprobs=True, top_logprobs=2)["choices"][0]["logprobs"]["content"]
    assert len(found) == 8
    for entry in found:
        assert entry["token"].encode() == bytes(entry["bytes"])
        assert entry["top_logprobs"][0]["token"] == entry["token"]
        assert len(entry["top_logprobs"]) == 2
    plain = ask(http, logprobs=True)["choices"][0]["logprobs"]["content"]
    assert [one["logprob"] for one in plain] == [one["logprob"] for one in found]
    assert all(one["top_logprobs"] == [] for one in plain)


@pytest.mark.parametrize(
    ("changes", "status", "param"),
    [
        ({"messages": []}, 422, "messages"),
        ({"messages": [{"role": "tool", "content": "a"}]}, 422, "messages.0.role"),
        ({"messages": [*USER, {"role": "assistant", "content": "a"}]}, 400, "messages"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, 422, "messages.0.content"),
        ({"top_logprobs": 2}, 422, None),
        ({"logprobs": 2}, 422, "logprobs"),
        ({"messages": [{"role": "user", "content": "x" * 300}]}, 400, "messages"),
        ({"max_tokens": 3, "max_completion_tokens": 4}, 422, None),
        ({"tools": []}, 422, "tools"),
        ({"response_format": {"type": "json_object"}}, 422, "response_format"),
        ({"model": "paint/colour"}, 400, "model"),
    ],
)
def test_bad_requests_say_what_is_wrong(
    http: httpx.Client, changes: dict[str, Any], status: int, param: str | None
) -> None:
    body = {"model": "acme/upper", "messages": USER} | changes
    content = json.dumps(body)
    headers = {"content-type": "application/json"}
    response = http.post("/v1/chat/completions", content=content, headers=headers)
    assert response.status_code == status, response.text
    assert param is None or response.json()["error"]["param"] == param


def test_openais_client_chats_and_streams(server: LiveServer) -> None:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key=DEVELOPMENT_KEY) as client:
        settings: dict[str, Any] = {
            "model": "acme/upper",
            "messages": USER,
            "max_completion_tokens": 6,
            "n": 2,
            "temperature": 1.0,
            "seed": 3,
            "logprobs": True,
            "top_logprobs": 1,
        }
        answer = client.chat.completions.create(**settings)
        texts = [choice.message.content for choice in answer.choices]
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 12
        assert answer.choices[0].logprobs is not None
        streamed, roles = ["", ""], [0, 0]
        options = {"include_usage": True}
        last = None
        for chunk in client.chat.completions.create(
            **settings, stream=True, stream_options=options
        ):
            last = chunk
            for choice in chunk.choices:
                streamed[choice.index] += choice.delta.content or ""
                roles[choice.index] += choice.delta.role == "assistant"
        assert streamed == texts
        assert roles == [1, 1]
        assert last is not None
        assert last.usage == answer.usage


def test_a_backbone_without_chat_template_says_so(byte_t5: Backbone, tmp_path: Path) -> None:
    ByT5Tokenizer().save_pretrained(tmp_path)
    served = ServedBackbone(
        "plain", byte_t5, Tokenizer(tmp_path, 384), cast(CoreClient, None), Defaults()
    )
    messages = [Message(role="user", content="a")]
    with pytest.raises(UsageError, match="plain has no chat template") as caught:
        asyncio.run(encode_chat(Target("plain", served), messages))
    assert caught.value.param == "messages"
