"""Choosing tokens: each setting against transformers' own processors on the same logits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    NoBadWordsLogitsProcessor,
    NoRepeatNGramLogitsProcessor,
    RepetitionPenaltyLogitsProcessor,
    SequenceBiasLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from adapters_store.errors import UsageError
from serving.engine import Request, Sampling
from serving.engine import draw as drawing
from serving.engine.adjust import adjust
from serving.engine.draw import uniform
from serving.engine.row import Row
from serving.engine.sampler import choose, likeliest

V = 24
START = 0


def row(prompt=(5, 6), written=(), start=START, ends=frozenset({1}), **sampling):
    made = Row.of(Request("a", "generate", None, prompt, Sampling(**sampling)), ends, start)
    for token in written:
        made.write(token)
    return made


def logits(rows, seed=0, scale=3.0):
    return torch.randn(rows, V, generator=torch.Generator().manual_seed(seed)) * scale


def adjusted(scores, *rows):
    changed = scores.clone()
    adjust(changed, rows)
    return changed


WRITTEN = [(3, 4, 3), (7,), (), (9, 9, 9, 2)]


@pytest.mark.parametrize("penalty", [0.5, 1.3, 2.0])
@pytest.mark.parametrize("start", [START, None])
def test_repetition_is_penalised_as_transformers_does(penalty, start):
    scores = logits(4)
    rows = [row(written=w, start=start, repetition_penalty=penalty) for w in WRITTEN]
    ours = adjusted(scores, *rows)
    processor = RepetitionPenaltyLogitsProcessor(penalty)
    for i, written in enumerate(WRITTEN):
        read = [START] if start is not None else [5, 6]
        theirs = processor(torch.tensor([[*read, *written]]), scores[i : i + 1].clone())
        assert torch.equal(ours[i : i + 1], theirs)


def test_frequency_and_presence_count_what_was_written_and_not_the_prompt():
    scores = logits(4)
    settings_ = {"frequency_penalty": 0.7, "presence_penalty": -0.4}
    rows = [row((3, 4, 9), written=w, start=None, **settings_) for w in WRITTEN]
    expected = scores.clone()
    for i, written in enumerate(WRITTEN):
        for token in set(written):
            expected[i, token] -= 0.7 * written.count(token) - 0.4
    torch.testing.assert_close(adjusted(scores, *rows), expected)


def test_a_bias_is_added_as_transformers_adds_single_token_sequences():
    scores = logits(2)
    bias = ((3, 5.0), (8, -100.0))
    processor = SequenceBiasLogitsProcessor([[[token], value] for token, value in bias])
    theirs = processor(torch.zeros(1, 1, dtype=torch.long), scores[:1].clone())
    ours = adjusted(scores, row(logit_bias=bias), row())
    torch.testing.assert_close(ours[:1], theirs)
    assert torch.equal(ours[1], scores[1])


def test_the_bias_acts_before_the_penalties():
    scores = torch.full((1, V), 1.0)
    made = row(written=(3,), logit_bias=((3, 3.0),), repetition_penalty=2.0, presence_penalty=0.5)
    assert adjusted(scores, made)[0, 3] == (1.0 + 3.0) / 2.0 - 0.5


def test_only_allowed_tokens_are_candidates():
    ours = adjusted(logits(2), row(allowed_token_ids=(4, 11)), row())
    assert ours[0].isfinite().nonzero().flatten().tolist() == [4, 11]
    assert ours[1].isfinite().all()


def test_what_ends_the_row_is_no_candidate_before_min_tokens():
    settings_ = {"min_tokens": 2, "stop_token_ids": (7,)}
    rows = [row(written=w, **settings_) for w in ((), (3,), (3, 4))]
    ours = adjusted(logits(3), *rows)
    masked = [one.isneginf().nonzero().flatten().tolist() for one in ours]
    assert masked == [[1, 7], [1, 7], []]


@settings(max_examples=40, deadline=None)
@given(
    tokens=st.lists(st.integers(0, 3), max_size=12),
    size=st.integers(0, 4),
    words=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=4), max_size=4),
    start=st.sampled_from([START, None]),
)
def test_bans_are_those_of_transformers(tokens, size, words, start):
    made = row(
        (2, 3),
        written=tokens,
        start=start,
        no_repeat_ngram_size=size,
        bad_words_ids=tuple(map(tuple, words)),
    )
    scores = logits(1)
    sequence = torch.tensor([[*([2, 3] if start is None else [START]), *tokens]])
    theirs = scores.clone()
    if size:
        theirs = NoRepeatNGramLogitsProcessor(size)(sequence, theirs)
    if [word for word in words if word != [1]]:
        theirs = NoBadWordsLogitsProcessor(words, [1])(sequence, theirs)
    assert torch.equal(adjusted(scores, made), theirs)
    beam = made.fork()
    beam.write(2)
    assert torch.equal(adjusted(scores, made), theirs)


def test_a_row_that_is_left_without_a_token_fails_alone():
    every = tuple((token,) for token in range(V) if token != 1)
    rows = [row(bad_words_ids=every, suppress_tokens=(1,)), row(), row(temperature=1.0, seed=1)]
    found = choose(logits(3), rows)
    assert found[0] is None
    assert found[1] is not None
    assert found[2] is not None


def test_rows_without_settings_share_a_batch_untouched():
    scores = logits(3)
    ours = adjusted(scores, row(), row(written=(3, 3), presence_penalty=1.0), row())
    assert torch.equal(ours[[0, 2]], scores[[0, 2]])
    assert (ours[1] != scores[1]).nonzero().flatten().tolist() == [3]


FILTERS = [
    {},
    {"top_k": 3},
    {"top_p": 0.6},
    {"min_p": 0.2},
    {"top_k": 8, "top_p": 0.7},
    {"top_k": 6, "min_p": 0.1},
    {"top_p": 0.9, "min_p": 0.3},
    {"top_k": 10, "top_p": 0.8, "min_p": 0.05},
    {"top_p": 1e-6},
]


def expected_distribution(scores, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0):
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    if top_k:
        warpers.append(TopKLogitsWarper(top_k))
    if top_p < 1:
        warpers.append(TopPLogitsWarper(top_p))
    if min_p:
        warpers.append(MinPLogitsWarper(min_p))
    return warpers(None, scores[None]).softmax(dim=1)[0]


@pytest.mark.parametrize("num_draws", [16, 0])
@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("temperature", [0.7, 1.8])
def test_samples_follow_the_distribution_of_transformers_warpers(
    monkeypatch, num_draws, filters, temperature
):
    monkeypatch.setattr(drawing, "_MAX_DRAWS", num_draws)
    scores = logits(1, seed=3, scale=1.5)[0]
    expected = expected_distribution(scores, temperature, **filters)
    count = 3000
    rows = [row(temperature=temperature, seed=seed, **filters) for seed in range(count)]
    tokens = drawing.draw(scores.repeat(count, 1), rows)
    shares = torch.bincount(torch.tensor(tokens), minlength=V) / count
    assert not shares[expected == 0].any()
    deviation = (expected * (1 - expected) / count).sqrt()
    assert ((shares - expected).abs() <= 5 * deviation + 1e-9).all()


SETTINGS = st.fixed_dictionaries(
    {
        "temperature": st.floats(0.05, 5),
        "top_k": st.integers(0, V + 2),
        "top_p": st.floats(0.01, 1),
        "min_p": st.floats(0, 1),
        "seed": st.integers(-(2**63), 2**63 - 1),
        "repetition_penalty": st.floats(0.5, 2),
    }
)


@given(drawn=st.lists(SETTINGS, min_size=1, max_size=6), seed=st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_a_rows_choice_never_depends_on_its_mates(drawn, seed):
    rows = [row(written=(2, 3), **one) for one in drawn]
    scores = logits(len(rows), seed)
    together = choose(scores.clone(), rows)
    alone = [choose(scores[i : i + 1].clone(), [one])[0] for i, one in enumerate(rows)]
    assert together == alone


def test_every_position_draws_its_own_number():
    drawn = [uniform(seed, position, 0) for seed in range(40) for position in range(40)]
    assert len(set(drawn)) == 1600
    assert all(0 <= one < 1 for one in drawn)
    assert abs(sum(drawn) / 1600 - 0.5) < 5 * (1 / 12 / 1600) ** 0.5


def test_seeds_that_differ_by_one_are_unrelated():
    pairs = torch.tensor([[uniform(s, 0, 0), uniform(s + 1, 0, 0)] for s in range(2000)])
    assert abs(torch.corrcoef(pairs.T)[0, 1]) < 0.1


def test_log_probabilities_are_the_models_own_whatever_the_settings():
    scores = logits(2)
    expected = scores.log_softmax(dim=1)
    made = row(written=(4,), logit_bias=((9, 50.0),), repetition_penalty=3.0, logprobs=3)
    first, second = choose(scores.clone(), [made, row()])
    assert first.token == 9
    assert first.logprob == pytest.approx(expected[0, 9].item(), abs=1e-6)
    top = expected[0].topk(3)
    assert [token for token, _ in first.top] == top.indices.tolist()
    assert [value for _, value in first.top] == pytest.approx(top.values.tolist(), abs=1e-6)
    assert (second.logprob, second.top) == (None, ())


def test_no_top_tokens_still_give_the_chosen_ones_log_probability():
    (choice,) = choose(logits(1), [row(logprobs=0)])
    assert choice.top == ()
    assert choice.logprob < 0


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_a_row_that_is_not_finite_fails_alone_under_any_settings(bad):
    scores = logits(4)
    scores[1, 5] = bad
    settings_ = [
        {"temperature": 1.0, "top_k": 3, "top_p": 0.5, "seed": 1, "logprobs": 2},
        {"repetition_penalty": 2.0, "logprobs": 1},
        {"logit_bias": ((2, 1.0),)},
    ]
    rows = [row(written=(5,), **one) for one in (settings_[0], *settings_)]
    choices = choose(scores.clone(), rows)
    assert choices[1] is None
    alone = [choose(scores[i : i + 1].clone(), [rows[i]])[0] for i in (0, 2, 3)]
    assert [choices[i] for i in (0, 2, 3)] == alone


def test_tiny_temperatures_choose_the_likeliest_token():
    scores = logits(1, scale=50)
    for temperature in (1e-9, 1e-46, 5e-324):
        (choice,) = choose(scores.clone(), [row(temperature=temperature, seed=3)])
        assert choice.token == scores.argmax().item()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"min_p": 1.1}, "min_p"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"presence_penalty": float("nan")}, "presence_penalty"),
        ({"logit_bias": ((1, 2.0), (1, 3.0))}, "every token once"),
        ({"logit_bias": ((1, float("inf")),)}, "logit_bias"),
        ({"max_tokens": 2, "min_tokens": 3}, "min_tokens"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
        ({"num_beams": 0}, "num_beams"),
        ({"num_beams": 2, "num_sequences": 3}, "num_sequences"),
        ({"num_beams": 2, "temperature": 1.0}, "beam search does not sample"),
        ({"num_beams": 2, "early_stopping": "soon"}, "early_stopping"),
        ({"length_penalty": float("nan")}, "length_penalty"),
        ({"num_beams": 2, "length_penalty": 10.5}, "length_penalty"),
        ({"num_beams": 2, "length_penalty": -10.5}, "length_penalty"),
    ],
)
def test_impossible_values_are_refused_by_name(values, message):
    with pytest.raises(UsageError, match=message) as caught:
        Sampling(**values)
    assert caught.value.param in {*values, "temperature"}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("vocab", [3, 64, 65, 640, 1000])
def test_the_likeliest_token_is_the_first_of_the_largest_logits(vocab, dtype):
    generator = torch.Generator().manual_seed(vocab)
    drawn = torch.randn(40, vocab, generator=generator).mul(2).round().to(dtype)
    drawn[0] = float("-inf")
    drawn[1, -1] = 1000.0
    drawn[2, 0] = 1000.0
    expected = [values.index(max(values)) for values in drawn.tolist()]
    assert likeliest(drawn).tolist() == expected
