"""What each sampling parameter of the HTTP API does, over the live server."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from serving.api.prompts import make_sampling, settle_beams
from serving.api.resolver import Target
from serving.api.schemas import CompletionBody
from serving.config import LimitsSection
from serving.engine.defaults import Defaults

MODEL = "acme/upper"


def ask(http: httpx.Client, prompt: Any = "hello", **more: Any) -> dict[str, Any]:
    body = {"model": MODEL, "prompt": prompt, "max_tokens": 8} | more
    response = http.post("/v1/completions", json=body)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert isinstance(answer, dict)
    return answer


def text(http: httpx.Client, **more: Any) -> str:
    found = ask(http, **more)["choices"][0]["text"]
    assert isinstance(found, str)
    return found


def events(http: httpx.Client, **more: Any) -> list[dict[str, Any]]:
    body = {"model": MODEL, "prompt": "hello", "max_tokens": 8, "stream": True} | more
    with http.stream("POST", "/v1/completions", json=body) as response:
        assert response.status_code == 200
        lines = [line.removeprefix("data: ") for line in response.iter_lines() if line]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


def id_of(symbol: str) -> int:
    return ord(symbol) + 3


def test_a_bias_makes_a_token_win_or_lose(http: httpx.Client) -> None:
    assert text(http, logit_bias={str(id_of("q")): 100}) == "q" * 8
    plain = text(http)
    without = text(http, logit_bias={str(id_of(plain[0])): -100})
    assert plain[0] not in without


def test_only_allowed_tokens_are_written(http: httpx.Client) -> None:
    allowed = [id_of(symbol) for symbol in "xyz"]
    found = text(http, allowed_token_ids=allowed, temperature=5, seed=1, max_tokens=30)
    assert set(found) == set("xyz")


@pytest.mark.parametrize(
    "penalty", [{"presence_penalty": 2}, {"frequency_penalty": 2}, {"repetition_penalty": 2}]
)
def test_penalties_change_what_is_repeated(http: httpx.Client, penalty: dict[str, float]) -> None:
    more = {"prompt": list("abcdefgh"), "max_tokens": 24}
    plain, other = (
        [one["text"] for one in ask(http, **more, **extra)["choices"]] for extra in ({}, penalty)
    )
    assert plain != other
    assert sum(len(set(one)) for one in plain) < sum(len(set(one)) for one in other)


def test_min_p_keeps_what_is_about_as_likely_as_the_best(http: httpx.Client) -> None:
    assert text(http, temperature=9, seed=3, min_p=1) == text(http)
    assert text(http, temperature=9, seed=3) != text(http)


def test_stop_tokens_end_an_output_and_min_tokens_holds_them_off(http: httpx.Client) -> None:
    plain = text(http)
    stop = id_of(plain[2])
    answer = ask(http, stop_token_ids=[stop])["choices"][0]
    assert (answer["text"], answer["finish_reason"]) == (plain[: plain.index(plain[2])], "stop")
    later = ask(http, stop_token_ids=[stop], min_tokens=6)["choices"][0]["text"]
    assert len(later) >= 6
    assert plain[2] not in later[:6]


def test_a_stop_string_is_included_on_demand(http: httpx.Client) -> None:
    plain = text(http, max_tokens=12)
    stop = plain[3:5]
    end = plain.index(stop) + len(stop)
    more = {"stop": stop, "include_stop_str_in_output": True, "max_tokens": 12}
    answer = ask(http, **more)["choices"][0]
    assert (answer["text"], answer["finish_reason"]) == (plain[:end], "stop")
    chunks = [one["choices"][0]["text"] for one in events(http, **more)]
    assert "".join(chunks) == plain[:end]
    assert text(http, min_tokens=end, **more) != plain[:end]


def test_tokens_are_banned_suppressed_and_forced(http: httpx.Client) -> None:
    plain = text(http, max_tokens=24)
    without = text(http, max_tokens=24, no_repeat_ngram_size=1)
    assert len(set(without)) == len(without)
    assert plain[0] not in text(http, bad_words_ids=[[id_of(plain[0])]])
    assert plain[0] not in text(http, suppress_tokens=[id_of(plain[0])])
    assert text(http, begin_suppress_tokens=[id_of(plain[0])])[0] != plain[0]
    assert text(http, forced_bos_token_id=id_of("q"))[0] == "q"
    answer = ask(http, forced_eos_token_id=1)["choices"][0]
    assert answer["finish_reason"] == "stop"
    assert len(answer["text"]) <= 7


def test_what_a_folder_says_holds_unless_the_request_says_otherwise() -> None:
    values = {"num_beams": 3, "no_repeat_ngram_size": 2, "length_penalty": 2.0}
    served = SimpleNamespace(defaults=Defaults(values, 6, is_encoder_decoder=True))
    target = cast(Target, SimpleNamespace(served=served, signature=None))

    def made(**said: Any) -> tuple[int, int, float, int]:
        body = CompletionBody(model="m", prompt="p", **said)
        settle_beams(target, body, max_rows=8, is_single=body.best_of in (None, body.n))
        one = make_sampling(target, body, LimitsSection(), num_input=9)
        return one.num_beams, one.no_repeat_ngram_size, one.length_penalty, one.min_tokens

    assert made() == (3, 2, 2.0, 5)
    assert made(num_beams=1, no_repeat_ngram_size=0, min_tokens=0) == (1, 0, 2.0, 0)
    assert made(num_beams=2, length_penalty=0.5) == (2, 2, 0.5, 5)
    assert made(temperature=0.5)[0] == made(n=4)[0] == made(best_of=2)[0] == 1
    assert made(n=3, max_tokens=2) == (3, 2, 2.0, 2)


def test_a_beam_search_gives_its_n_best(http: httpx.Client) -> None:
    more = {"num_beams": 4, "n": 3, "logprobs": 0, "length_penalty": 0.0}
    answer = ask(http, **more)
    choices = answer["choices"]
    assert [one["index"] for one in choices] == [0, 1, 2]
    scores = [sum(one["logprobs"]["token_logprobs"]) for one in choices]
    assert scores == sorted(scores, reverse=True)
    assert len({one["text"] for one in choices}) == 3
    assert answer["usage"]["completion_tokens"] == 24
    greedy = ask(http, logprobs=0)["choices"][0]["logprobs"]["token_logprobs"]
    assert scores[0] >= sum(greedy) - 1e-4
    streamed = {
        one["choices"][0]["index"]: one["choices"][0]["text"] for one in events(http, **more)
    }
    assert streamed == {one["index"]: one["text"] for one in choices}


def test_stop_strings_cut_the_sequences_of_a_search(http: httpx.Client) -> None:
    whole = ask(http, num_beams=3)["choices"][0]["text"]
    answer = ask(http, num_beams=3, stop=whole[2:4])["choices"][0]
    assert answer["text"] == whole[: whole.index(whole[2:4])]
    assert answer["finish_reason"] == "stop"


def test_best_of_gives_the_likeliest_of_several_outputs(http: httpx.Client) -> None:
    more = {"temperature": 1.2, "seed": 5, "logprobs": 0}
    every = ask(http, n=6, **more)["choices"]
    best = ask(http, n=2, best_of=6, **more)
    ranked = sorted(every, key=lambda one: -sum(one["logprobs"]["token_logprobs"]))
    assert [one["text"] for one in best["choices"]] == [one["text"] for one in ranked[:2]]
    assert best["usage"]["completion_tokens"] == 48
    plain = ask(http, n=2, best_of=6, temperature=1.2, seed=5)["choices"]
    assert [one["text"] for one in plain] == [one["text"] for one in ranked[:2]]
    assert plain[0]["logprobs"] is None


def test_log_probabilities_hold_the_chosen_token_beside_the_likeliest(http: httpx.Client) -> None:
    found = ask(http, logprobs=1, temperature=9, seed=4)["choices"][0]["logprobs"]
    rows = zip(found["tokens"], found["token_logprobs"], found["top_logprobs"], strict=True)
    for token, logprob, top in rows:
        assert top[token] == logprob
        assert max(top.values()) >= logprob
        assert len(top) == (1 if max(top.values()) == logprob else 2)
    greedy = ask(http, logprobs=1)["choices"][0]["logprobs"]
    for logprob, top in zip(greedy["token_logprobs"], greedy["top_logprobs"], strict=True):
        assert max(top.values()) == logprob


def test_the_echo_of_an_encoders_prompt_has_no_log_probabilities(http: httpx.Client) -> None:
    answer = ask(http, prompt="é!", echo=True, logprobs=1)["choices"][0]
    plain = text(http, prompt="é!")
    assert answer["text"] == "é!" + plain
    found = answer["logprobs"]
    assert found["tokens"][:4] == [r"bytes:\xc3", r"bytes:\xa9", "!", "</s>"]
    assert found["token_logprobs"][:4] == found["top_logprobs"][:4] == [None] * 4
    assert found["text_offset"] == [0, 0, 1, 2, *range(2, 10)]
    assert all(value < 0 for value in found["token_logprobs"][4:])
    chunks = [one["choices"][0] for one in events(http, prompt="é!", echo=True, logprobs=1)]
    assert "".join(one["text"] for one in chunks) == answer["text"]
    for name in ("tokens", "token_logprobs", "text_offset"):
        assert [item for one in chunks for item in one["logprobs"][name]] == found[name]
