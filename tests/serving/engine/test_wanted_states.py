"""Reading an input for its next token alone: the last layer runs for one row of each input."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from world_kit import World

from benchmarks.drive import answers
from serving.engine import Engine, EngineConfig, Request, Sampling, Token
from serving.engine.transformer.linear_site import LinearSite

LENGTHS = (40, 7, 1, 23, 64, 12)


def requests(world: World, count: int | None) -> list[Request]:
    """One row of every kind of task; ``count`` asks for log-probabilities of the prompt."""
    adapters = [None, *world.loras[:2], *world.routings[:2], None]
    generator = torch.Generator().manual_seed(3)
    sampling = Sampling(max_tokens=4, ignore_eos=True, logprobs=0, prompt_logprobs=count)
    return [
        Request(
            f"{i}",
            "generate",
            adapter,
            tuple(torch.randint(3, 48, (length,), generator=generator).tolist()),
            sampling,
        )
        for i, (adapter, length) in enumerate(zip(adapters, LENGTHS, strict=True))
    ]


@pytest.mark.parametrize("max_step_tokens", [256, 16], ids=["whole", "in-parts"])
def test_an_answer_does_not_depend_on_whether_all_states_were_asked_for(
    llama_world: World, max_step_tokens: int
) -> None:
    found: list[tuple[list[list[int]], list[list[float | None]]]] = []
    for count in (None, 0):
        config = EngineConfig(max_step_tokens=max_step_tokens, prefix_cache_bytes=0)
        engine = Engine(llama_world.backbone, llama_world.loader, config)
        outcomes = answers(engine, requests(llama_world, count))
        engine.close()
        ordered = [outcomes[f"{i}"] for i in range(len(LENGTHS))]
        logprobs = [[e.logprob for e in one.events if isinstance(e, Token)] for one in ordered]
        found.append(([one.tokens for one in ordered], logprobs))
    (tokens, logprobs), (all_tokens, all_logprobs) = found
    assert tokens == all_tokens
    for mine, theirs in zip(logprobs, all_logprobs, strict=True):
        assert mine == pytest.approx(theirs, abs=1e-5)


def test_the_last_layer_adds_to_one_row_of_each_input(
    llama_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: Counter[LinearSite] = Counter()
    product = LinearSite.__call__

    def counted(site: LinearSite, x: torch.Tensor, plan: object = None) -> torch.Tensor:
        seen[site] += x.shape[0]
        return product(site, x, plan)  # type: ignore[arg-type]

    engine = Engine(llama_world.backbone, llama_world.loader, EngineConfig(prefix_cache_bytes=0))
    first, last = engine._weights.reader.layers
    monkeypatch.setattr(LinearSite, "__call__", counted)
    answers(engine, requests(llama_world, None))
    engine.close()
    num_spared = sum(LENGTHS) - len(LENGTHS)
    assert seen[first.ffn_in] == seen[last.self_qkv]
    for site in (last.self_o, last.ffn_in, last.ffn_out):
        assert seen[site] == seen[last.self_qkv] - num_spared
