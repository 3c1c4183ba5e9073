"""Beam searches under every kind of adapter, and prompts' own scores, against the reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from primitives_kit import KINDS, NUM_TOKENS, World

from adapters_store.errors import UsageError
from benchmarks.drive import answers
from serving.engine import Prompt, Sampling, Searched

FRONTED = (
    "prefix that shifts",
    "prefix of unlike rows",
    "deep prompt with positions",
    "everything",
)


@pytest.fixture(scope="module", params=["t5", "bart", "llama", "gpt2"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    world = World(request.param)
    yield world
    world.close()


def test_searches_of_every_kind_in_one_batch_equal_generate(world: World) -> None:
    ids = world.inputs()[0]
    sampling = Sampling(max_tokens=NUM_TOKENS, num_beams=3, num_sequences=3, ignore_eos=True)
    kinds = [None, *KINDS, "routing"]
    requests = [replace(world.request(f"{kind}", kind, ids), sampling=sampling) for kind in kinds]
    mate = world.request("mate", "low_rank", ids)
    engine = world.engine(max_rows=128)
    answers(engine, [*requests, mate])
    outcomes = answers(engine, [*requests, mate])
    assert max(engine.stats().batch_rows) == 3 * len(kinds) + 1
    world.check(outcomes["mate"], "low_rank", ids)
    for kind in kinds:
        (found,) = outcomes[f"{kind}"].events
        assert isinstance(found, Searched)
        input_ids = torch.tensor([ids])
        with world.adapted(kind) as adapted:
            wanted = adapted.generate(
                input_ids=input_ids,
                attention_mask=torch.ones_like(input_ids),
                max_new_tokens=NUM_TOKENS,
                num_beams=3,
                num_return_sequences=3,
                output_scores=True,
                return_dict_in_generate=True,
            )
        tokens = [[token.token for token in one.tokens] for one in found.hypotheses]
        assert tokens == wanted.sequences[:, -NUM_TOKENS:].tolist(), kind
        scores = torch.tensor([one.score for one in found.hypotheses])
        torch.testing.assert_close(scores, wanted.sequences_scores, atol=1e-4, rtol=0)


def test_a_prompts_own_tokens_are_scored_behind_its_adapters_rows(world: World) -> None:
    ids = world.inputs()[2]
    for kind in FRONTED:
        request = world.request(kind, kind, ids)
        asked = replace(request, sampling=replace(request.sampling, prompt_logprobs=0))
        if world.is_encoder_decoder:
            with pytest.raises(UsageError, match="prompt_logprobs"):
                world.engine().submit(asked)
            continue
        outcome = answers(world.engine(), [asked])[kind]
        world.check(outcome, kind, ids)
        (scored,) = [event for event in outcome.events if isinstance(event, Prompt)]
        input_ids = torch.tensor([ids])
        with torch.no_grad(), world.adapted(kind) as adapted:
            logits = adapted(input_ids=input_ids).logits[0, -len(ids) : -1]
        wanted = logits.log_softmax(1).gather(1, input_ids[0, 1:, None])[:, 0]
        found = torch.tensor([token.logprob for token in scored.tokens[1:]])
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
