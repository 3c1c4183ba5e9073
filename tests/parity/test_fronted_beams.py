"""Beam searches behind prefixes and prompts, and prompts' own scores, against the reference."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from primitives_kit import NUM_TOKENS, World

from adapters_store.errors import UsageError
from benchmarks.drive import answers
from serving.engine import Prompt, Sampling, Searched
from training.reference import applied

KINDS = ("prefix that shifts", "prefix of unlike rows", "deep prompt with positions", "everything")


@pytest.fixture(scope="module", params=["t5", "bart", "llama", "gpt2"])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    world = World(request.param)
    yield world
    world.close()


def test_searches_of_every_kind_in_one_batch_equal_generate(world: World) -> None:
    ids = world.inputs()[0]
    sampling = Sampling(max_tokens=NUM_TOKENS, num_beams=3, num_sequences=3, ignore_eos=True)
    requests = [replace(world.request(kind, kind, ids), sampling=sampling) for kind in KINDS]
    mate = world.request("mate", "low_rank", ids)
    outcomes = answers(world.engine(max_rows=16), [*requests, mate])
    world.check(outcomes["mate"], "low_rank", ids)
    for kind in KINDS:
        (found,) = outcomes[kind].events
        assert isinstance(found, Searched)
        input_ids = torch.tensor([ids])
        with applied(world.model, world.backbone, world.artefacts[kind]) as adapted:
            wanted = adapted.generate(
                input_ids=input_ids,
                attention_mask=torch.ones_like(input_ids),
                max_new_tokens=NUM_TOKENS,
                num_beams=3,
                num_return_sequences=3,
            )
        tokens = [[token.token for token in one.tokens] for one in found.hypotheses]
        assert tokens == wanted[:, -NUM_TOKENS:].tolist(), kind


def test_a_prompts_own_tokens_are_scored_behind_its_adapters_rows(world: World) -> None:
    ids = world.inputs()[2]
    for kind in KINDS:
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
        artefact = world.artefacts[kind]
        with torch.no_grad(), applied(world.model, world.backbone, artefact) as adapted:
            logits = adapted(input_ids=input_ids).logits[0, -len(ids) : -1]
        wanted = logits.log_softmax(1).gather(1, input_ids[0, 1:, None])[:, 0]
        found = torch.tensor([token.logprob for token in scored.tokens[1:]])
        torch.testing.assert_close(found, wanted, atol=1e-4, rtol=0)
