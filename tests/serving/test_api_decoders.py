"""A backbone of one stack over HTTP: prompts begin with its own token and are continued."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import httpx
import pytest
import torch
from decoder_kit import BOS, save_word_llama
from live_server import LiveServer
from serve_kit import WORDS, serve_config, text_adapter
from transformers import LlamaForCausalLM

from adapters_store.artefact import Artefact, load_tensors
from adapters_store.backbone import Backbone
from adapters_store.manifest import TaskSignature
from adapters_store.store import Store

NUM_TOKENS = 6
TEXT = TaskSignature(task="text2text", max_input_tokens=40, max_output_tokens=NUM_TOKENS)


@pytest.fixture(scope="module")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    return Backbone.from_folder(save_word_llama(tmp_path_factory.mktemp("b") / "tiny-llama"))


@pytest.fixture(scope="module")
def adapter(backbone: Backbone) -> Artefact:
    return text_adapter(backbone, 1, TEXT, scale=0.5)


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, backbone: Backbone, adapter: Artefact
) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("served") / "store"
    with Store.open(folder) as store:
        store.add_backbone(backbone, name="tiny-llama")
        store.publish("acme/words", adapter)
    with LiveServer(serve_config(folder, backbone.folder)) as live:
        yield live


@pytest.fixture
def http(server: LiveServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client


def expected(backbone: Backbone, ids: Sequence[int], adapter: Artefact | None = None) -> str:
    """The words that transformers writes after ``ids``, with the adapter in its weights."""
    model = LlamaForCausalLM.from_pretrained(backbone.folder).eval()
    with torch.inference_mode():
        if adapter is not None:
            tensors = load_tensors(adapter)
            for part in adapter.manifest.low_rank_parts:
                a, b = (tensors[f"{part.site}/low_rank/{side}"] for side in "ab")
                path = backbone.sites[part.site].module_path
                model.model.get_submodule(path).weight += part.scale * (a @ b).t()
        found = model.generate(
            torch.tensor([ids]), max_new_tokens=NUM_TOKENS, do_sample=False, pad_token_id=0
        )
    return " ".join(WORDS[token - 4] for token in found[0].tolist()[len(ids) :])


def ids_of(words: str) -> list[int]:
    return [BOS, *(4 + WORDS.index(word) for word in words.split())]


@pytest.mark.parametrize("words", ["the sky is", "fire"])
def test_a_prompt_is_continued_behind_its_first_token(
    http: httpx.Client, backbone: Backbone, adapter: Artefact, words: str
) -> None:
    answers = {}
    for model, artefact in (("tiny-llama", None), ("acme/words", adapter)):
        body = {"model": model, "prompt": words, "max_tokens": NUM_TOKENS, "ignore_eos": True}
        response = http.post("/v1/completions", json=body)
        assert response.status_code == 200, response.text
        answers[model] = response.json()["choices"][0]["text"].strip()
        assert answers[model] == expected(backbone, ids_of(words), artefact)
        assert response.json()["usage"]["prompt_tokens"] == 1 + len(words.split())
    assert len(set(answers.values())) == 2


def test_token_ids_are_taken_as_they_are_given(http: httpx.Client, backbone: Backbone) -> None:
    ids = ids_of("grass is green")[1:]
    body = {"model": "tiny-llama", "prompt": ids, "max_tokens": NUM_TOKENS, "ignore_eos": True}
    answer = http.post("/v1/completions", json=body).json()
    assert answer["choices"][0]["text"].strip() == expected(backbone, ids)
    assert answer["usage"]["prompt_tokens"] == 3


def test_a_stream_adds_up_to_the_whole_text(http: httpx.Client, backbone: Backbone) -> None:
    body = {
        "model": "tiny-llama",
        "prompt": "a b c",
        "max_tokens": NUM_TOKENS,
        "ignore_eos": True,
        "stream": True,
    }
    with http.stream("POST", "/v1/completions", json=body) as response:
        lines = [line for line in response.iter_lines() if line.startswith("data: {")]
    chunks = [json.loads(line.removeprefix("data: ")) for line in lines]
    whole = "".join(one["choices"][0]["text"] for one in chunks if one["choices"])
    assert whole.strip() == expected(backbone, ids_of("a b c"))


def test_a_prompt_and_answer_that_outgrow_the_positions_are_refused(http: httpx.Client) -> None:
    body = {"model": "tiny-llama", "prompt": [4] * 60, "max_tokens": 5}
    response = http.post("/v1/completions", json=body)
    assert response.status_code in (400, 422)
    assert "takes 64" in response.json()["error"]["message"]


def test_a_beam_search_refuses_log_probabilities_of_the_prompt_by_the_callers_names(
    http: httpx.Client,
) -> None:
    body = {"model": "tiny-llama", "prompt": "the sky", "max_tokens": 4, "num_beams": 2}
    body |= {"echo": True, "logprobs": 1}
    answer = http.post("/v1/completions", json=body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["param"] == "echo"
    assert "prompt_logprobs" not in answer.json()["error"]["message"]
    assert http.post("/v1/completions", json={**body, "logprobs": None}).status_code == 200
