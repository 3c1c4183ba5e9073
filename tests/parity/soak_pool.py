"""What random traffic asks for, and what transformers answers to each of it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from drawn_kit import Drawn
from primitives_kit import KINDS, World
from reference_kit import artefact_of

from adapters_store.primitives.low_rank import LowRankPart
from adapters_store.primitives.prefix import PrefixPart
from benchmarks.drive import Outcome
from serving.engine import Prompt, Request, Sampling, Searched, Token
from serving.engine.endings import end_tokens

MISSING = "sha256:" + "0" * 64
NUM_BEAMS = 3
LEAST_GAP = 1e-3
"""Between the best two logits of a greedy step: nearer ones are nobody's promise."""


@dataclass
class Expected:
    """What a request gets: the fields of an :class:`Outcome`, with log-probabilities."""

    tokens: list[int] = field(default_factory=list)
    reason: str | None = None
    logprobs: list[float] = field(default_factory=list)
    prompt: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    vector: list[float] = field(default_factory=list)
    sequences: list[list[int]] = field(default_factory=list)
    code: str | None = None

    def check(self, found: Outcome, *, is_cut: bool) -> None:
        """Assert that an outcome is this; where it ``is_cut`` off, that it began like this."""
        if is_cut and (found.reason == "cancelled" or found.code == "unavailable"):
            assert found.tokens == self.tokens[: len(found.tokens)]
            return
        assert (found.code, found.reason) == (self.code, self.reason), found.events
        if self.code is not None:
            return
        assert found.tokens == self.tokens
        own = [e.logprob for e in found.events if isinstance(e, Token) and e.logprob is not None]
        assert own == pytest.approx(self.logprobs, abs=1e-4)
        assert (found.scores or []) == pytest.approx(self.scores, abs=1e-4)
        assert (found.vector or []) == pytest.approx(self.vector, abs=1e-4)
        for event in found.events:
            if isinstance(event, Searched):
                assert [[t.token for t in h.tokens] for h in event.hypotheses] == self.sequences
            elif isinstance(event, Prompt):
                assert [t.logprob for t in event.tokens[1:]] == pytest.approx(self.prompt, abs=1e-4)


@dataclass
class Pool:
    """Requests of one world with their answers: by id, and the ids by the artefact they ask for."""

    world: World
    requests: dict[str, Request] = field(default_factory=dict)
    expected: dict[str, Expected] = field(default_factory=dict)
    by_digest: dict[str | None, list[str]] = field(default_factory=dict)

    def add(self, kind: str | None, request: Request) -> bool:
        """Keep a request that transformers answers clearly; False where it does not."""
        expected = self.answer(kind, request)
        if expected is not None:
            self._keep(request, expected)
        return expected is not None

    def add_failing(self, request: Request, code: str) -> None:
        """Keep a request that fails."""
        self._keep(request, Expected(code=code))

    def _keep(self, request: Request, expected: Expected) -> None:
        self.requests[request.id], self.expected[request.id] = request, expected
        self.by_digest.setdefault(request.adapter, []).append(request.id)

    def answer(self, kind: str | None, request: Request) -> Expected | None:
        """What transformers answers; None where two tokens are equally good."""
        if request.kind == "classify":
            return Expected(scores=self.world.expected(kind, request.input_ids).scores.tolist())
        if request.kind == "embed":
            return Expected(vector=self.world.embedding(kind, request.input_ids).tolist())
        with torch.no_grad(), self.world.adapted(kind) as adapted:
            if request.sampling.num_beams > 1:
                return self._searched(adapted, request)
            return self._written(adapted, request)

    def _ends(self, sampling: Sampling) -> frozenset[int]:
        own = frozenset() if sampling.ignore_eos else end_tokens(self.world.backbone)
        return own | frozenset(sampling.stop_token_ids)

    def _written(self, adapted: Any, request: Request) -> Expected | None:
        sampling = request.sampling
        options: dict[str, Any] = {}
        if sampling.temperature > 0:
            options["logits_processor"] = [Drawn(sampling, [sampling.seed or 0])]
        elif sampling.repetition_penalty != 1:
            options["repetition_penalty"] = sampling.repetition_penalty
        found = _generate(adapted, request, output_logits=True, output_scores=True, **options)
        tokens = found.sequences[0, -sampling.max_tokens :].tolist()
        ends = self._ends(sampling)
        length = next((i for i, t in enumerate(tokens) if t in ends), sampling.max_tokens)
        best = torch.cat(found.scores)[: length + 1].topk(2, dim=1).values
        if (best[:, 0] - best[:, 1]).min() < LEAST_GAP:
            return None
        expected = Expected(tokens[:length], "stop" if length < len(tokens) else "length")
        if sampling.logprobs is not None:
            logprobs = torch.cat(found.logits).log_softmax(1)
            expected.logprobs = [row[t].item() for row, t in zip(logprobs, expected.tokens)]
        if sampling.prompt_logprobs is not None:
            ids = torch.tensor([request.input_ids])
            logits = adapted(input_ids=ids).logits[0, -ids.shape[1] : -1]
            expected.prompt = logits.log_softmax(1).gather(1, ids[0, 1:, None])[:, 0].tolist()
        return expected

    def _searched(self, adapted: Any, request: Request) -> Expected:
        sampling = request.sampling
        ends = sorted(self._ends(sampling))
        options: dict[str, Any] = {"eos_token_id": ends, "pad_token_id": 0} if ends else {}
        found = _generate(
            adapted,
            request,
            num_beams=sampling.num_beams,
            num_return_sequences=sampling.num_sequences,
            length_penalty=sampling.length_penalty,
            **options,
        )
        is_read = not self.world.is_encoder_decoder
        sequences, reasons = [], []
        for tokens in found.sequences[:, len(request.input_ids) if is_read else 1 :].tolist():
            length = next((i for i, t in enumerate(tokens) if t in ends), len(tokens))
            sequences.append(tokens[:length])
            reasons.append("stop" if length < len(tokens) else "length")
        return Expected(sequences[0], reasons[0], sequences=sequences)


def _generate(adapted: Any, request: Request, **options: Any) -> Any:
    input_ids = torch.tensor([request.input_ids])
    return adapted.generate(
        **{
            "input_ids": input_ids,
            "attention_mask": torch.ones_like(input_ids),
            "max_new_tokens": request.sampling.max_tokens,
            "do_sample": False,
            "num_beams": 1,
            "return_dict_in_generate": True,
            **options,
        }
    )


def sampling_of(world: World, chance: random.Random) -> Sampling:
    """Greedy, sampled, penalised or searching, with all sorts of ends."""
    own: dict[str, Any] = {
        "max_tokens": chance.choice((1, 4, 12, 90)),
        "ignore_eos": chance.random() < 0.5,
        "stop_token_ids": chance.choice(((), (), (9, 30))),
        "logprobs": chance.choice((None, 0, 3)),
    }
    match chance.randrange(5):
        case 0:
            own |= {"temperature": chance.choice((0.7, 1.5)), "seed": chance.randrange(10**9)}
            own |= chance.choice(({"top_k": 9}, {"top_p": 0.9}, {"top_k": 30, "top_p": 0.7}))
        case 1:
            own["repetition_penalty"] = 1.3
        case 2:
            penalty = chance.choice((-1.0, 0.5, 2.0))
            own |= {"num_beams": NUM_BEAMS, "num_sequences": 2, "length_penalty": penalty}
            own |= {"max_tokens": 9, "logprobs": None}
        case 3 if world.can_generate and not world.is_encoder_decoder:
            own["prompt_logprobs"] = 0
    return Sampling(**own)


def make_pool(world: World, seed: int, num_inputs: int = 2) -> Pool:
    """Every kind with several inputs, a newer version of each, bare rows and those that fail."""
    chance, pool = random.Random(seed), Pool(world)
    base = [*KINDS, "routing", *world.heads]
    kinds: list[str | None] = [*base, *(world.newer(kind) for kind in base), *[None] * 6]
    common = tuple(chance.randrange(3, 60) for _ in range(40))
    for kind in kinds:
        num_left = num_inputs
        while num_left:
            ids = tuple(chance.randrange(3, 60) for _ in range(chance.randint(1, 12)))
            if chance.random() < 0.4:
                ids = common[: chance.randint(33, 40)] + ids
            request = world.request(f"{len(pool.requests)}", kind, ids)
            if request.kind == "generate":
                is_embedded = chance.random() < 0.1
                own = {"kind": "embed"} if is_embedded else {"sampling": sampling_of(world, chance)}
                request = replace(request, **own)
            num_left -= pool.add(kind, request)
    add_failing(pool)
    return pool


def add_failing(pool: Pool) -> None:
    """Rows of artefacts that are not finite, not there, of another backbone or too large."""
    world, ids = pool.world, (5, 6, 7, 8)
    task = "generate" if world.can_generate else "embed"
    sites = list(world.backbone.sites)
    wild = artefact_of(world.backbone, [LowRankPart(site=s, rank=2, scale=1e30) for s in sites])
    vast = artefact_of(
        world.backbone,
        [
            PrefixPart(attention=one.name, num_tokens=2000, shifts_positions=True)
            for one in world.backbone.shapes.anatomy.attentions
        ],
    )
    other = World("gpt2").backbone
    foreign = artefact_of(other, [LowRankPart(site=next(iter(other.sites)), rank=1, scale=1.0)])
    for artefact in (wild, vast, foreign):
        world.loader.add(artefact)
    sampling = Sampling(max_tokens=4, ignore_eos=True)
    for digest, code in (
        (wild.digest, "not_finite"),
        (vast.digest, "artefact_too_large"),
        (foreign.digest, "incompatible"),
        (MISSING, "not_found"),
    ):
        name = f"{len(pool.requests)}"
        pool.add_failing(Request(name, task, digest, ids, sampling), code)
    limit = world.backbone.architecture.max_positions
    if limit is not None:
        digest = world.artefacts["prefix that shifts"].digest
        most = (5,) * (limit - (sampling.max_tokens if world.can_generate else 0))
        name = f"{len(pool.requests)}"
        pool.add_failing(Request(name, task, digest, most, sampling), "invalid_request")
    headless = world.artefacts["low_rank"].digest
    pool.add_failing(Request(f"{len(pool.requests)}", "classify", headless, ids), "incompatible")
