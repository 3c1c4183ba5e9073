"""Every kind of artefact on tiny committed backbones, and what the reference answers for it."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import torch
from generation_kit import save_generator
from reference_kit import artefact_of, backbone_of, model_of, routing_of, routing_over

from adapters_store.artefact import Artefact
from adapters_store.backbone import Backbone
from adapters_store.errors import IncompatibleError
from adapters_store.primitives import Part
from adapters_store.primitives.bottleneck import (
    BottleneckActivation,
    BottleneckPart,
    Reads,
)
from adapters_store.primitives.head import HeadPart
from adapters_store.primitives.low_rank import LowRankPart
from adapters_store.primitives.override import OverridePart
from adapters_store.primitives.prefix import PrefixPart
from adapters_store.primitives.prompt import PromptPart
from adapters_store.primitives.scale import ScalePart
from benchmarks.drive import Outcome
from benchmarks.synthetic import MemoryLoader
from serving.engine import Engine, EngineConfig, Request, Sampling, Token, Weights, load_weights
from training.reference import applied

NUM_TOKENS = 6
NUM_TOP = 5
LENGTHS = (5, 1, 17)


def _is_run(name: str) -> bool:
    try:
        backbone_of(name).architecture  # noqa: B018
    except IncompatibleError:
        return False
    return True


BACKBONES = [
    name
    for name in ("t5", "bart", "bert", "roberta", "llama", "gemma", "qwen2", "gpt2")
    if _is_run(name)
]
SAVED: Mapping[str, dict[str, Any]] = {
    "mistral": {"sliding_window": 7},
    "gemma2": {"sliding_window": 7},
    "gemma3_text": {"sliding_window": 7},
    "qwen3": {},
    "umt5": {"num_decoder_layers": 2},
}
"""Families with a way of their own to see or to norm, and what their golden configuration lacks."""
WRITERS = [name for name in BACKBONES if backbone_of(name).shapes.anatomy.can_generate]
ENCODERS = [name for name in BACKBONES if name not in WRITERS]


def _sites(backbone: Backbone) -> list[str]:
    return list(backbone.sites)


def _bottlenecks(
    backbone: Backbone,
    reads: Reads,
    *,
    rank: int = 4,
    activation: BottleneckActivation = "relu",
    norm_eps: float | None = None,
    where: str = "",
) -> list[Part]:
    return [
        BottleneckPart(
            block=block.name,
            rank=rank,
            activation=activation,
            reads=reads,
            scale=0.7,
            norm_eps=norm_eps,
        )
        for block in backbone.shapes.anatomy.blocks
        if block.name.endswith(where)
    ]


def _prefixes(backbone: Backbone, rows: tuple[int, ...]) -> list[Part]:
    """Prefixes before every attention, of as many rows as are given for its layer."""
    parts: list[Part] = []
    for attention in backbone.shapes.anatomy.attentions:
        layer = int(attention.name.split(".")[1])
        num_rows = rows[layer % len(rows)]
        if num_rows:
            # Where positions are relative, every other layer keeps the tokens' distances.
            shifts = attention.relative_bias is not None and layer % 2 == 1
            parts.append(
                PrefixPart(attention=attention.name, num_tokens=num_rows, shifts_positions=shifts)
            )
    return parts


def _prompts(backbone: Backbone, layers: tuple[int, ...], *, has_positions: bool) -> list[Part]:
    return [
        PromptPart(
            input=one.name,
            layer=layer,
            num_tokens=3 if one.name == "decoder" else 2,
            has_positions=has_positions,
        )
        for one in backbone.shapes.anatomy.inputs
        for layer in layers
    ]


Parts = Callable[[Backbone], list[Part]]

KINDS: Mapping[str, Parts] = {
    "low_rank": lambda b: [LowRankPart(site=s, rank=2, scale=1.0) for s in _sites(b)],
    "low_rank of one map": lambda b: [
        LowRankPart(site=s, rank=5, scale=1.0)
        for s in _sites(b)
        if s.endswith(("self.v", "self.qkv"))
    ],
    "scale of outputs": lambda b: [ScalePart(site=s, side="output") for s in _sites(b)],
    "scale of inputs": lambda b: [ScalePart(site=s, side="input") for s in _sites(b)],
    "scale as in IA3": lambda b: [
        ScalePart(site=s, side="input" if "ffn" in s else "output")
        for s in _sites(b)
        if s.endswith(("self.k", "self.v", "self.qkv", "ffn.out"))
    ],
    "scale and low_rank": lambda b: [
        *(ScalePart(site=s, side=side) for s in _sites(b) for side in ("input", "output")),
        *(LowRankPart(site=s, rank=3, scale=0.5) for s in _sites(b)),
    ],
    "override by adding": lambda b: [
        OverridePart(vector=v.name, operation="add") for v in b.shapes.anatomy.vectors
    ],
    "override of norms": lambda b: [
        OverridePart(vector=v.name, operation="replace")
        for v in b.shapes.anatomy.vectors
        if v.name.endswith(("norm.gain", "norm.bias"))
    ],
    "override and low_rank and scale": lambda b: [
        *(OverridePart(vector=f"{s}.bias", operation="replace") for s in _sites(b)),
        *(LowRankPart(site=s, rank=9, scale=0.5) for s in _sites(b)),
        *(ScalePart(site=s, side="output") for s in _sites(b)),
    ],
    "bottleneck of Houlsby": lambda b: _bottlenecks(b, "output", activation="silu"),
    "bottleneck of Pfeiffer": lambda b: _bottlenecks(b, "sum", rank=20, where="after_ffn"),
    "bottleneck beside": lambda b: _bottlenecks(b, "input", norm_eps=1e-5),
    "bottleneck of every kind": lambda b: [
        *(part for reads in get_args(Reads) for part in _bottlenecks(b, reads, rank=3)),
        *(LowRankPart(site=s, rank=2, scale=0.5) for s in _sites(b)),
        *(
            OverridePart(vector=v.name, operation="add")
            for v in b.shapes.anatomy.vectors
            if "norm" in v.name
        ),
    ],
    "prefix that shifts": lambda b: [
        PrefixPart(attention=a.name, num_tokens=3, shifts_positions=True)
        for a in b.shapes.anatomy.attentions
        if a.name.endswith("self")
    ],
    "prefix that does not": lambda b: _prefixes(b, (3, 3)),
    "prefix of unlike rows": lambda b: _prefixes(b, (2, 5)),
    "prefix of one layer": lambda b: _prefixes(b, (0, 4)),
    "prefix and low_rank": lambda b: [*_prefixes(b, (1, 1)), *KINDS["low_rank"](b)],
    "prompt with positions": lambda b: _prompts(b, (0,), has_positions=True),
    "prompt without positions": lambda b: _prompts(b, (0,), has_positions=False),
    "deep prompt with positions": lambda b: _prompts(b, (0, 1), has_positions=True),
    "deep prompt without positions": lambda b: _prompts(b, (0, 1), has_positions=False),
    "prompt of the last stack": lambda b: _prompts(b, (0, 1), has_positions=True)[-2:],
    "everything": lambda b: [
        part
        for kind in (
            "scale and low_rank",
            "override by adding",
            "bottleneck beside",
            "prefix that shifts",
            "deep prompt without positions",
        )
        for part in KINDS[kind](b)
    ],
}
"""What an adapter may hold; ``routing`` and the bare backbone are always there too."""

HEADS: Mapping[str, Parts] = {
    "head over the mean": lambda b: [HeadPart(num_labels=3, pooling="mean")],
    "head over the first token": lambda b: [
        HeadPart(num_labels=2, pooling="cls"),
        *KINDS["low_rank"](b),
    ],
    "head over the last token": lambda b: [
        HeadPart(num_labels=5, pooling="last", dense_size=7),
        *KINDS["bottleneck of Pfeiffer"](b),
    ],
    "head over a dense layer": lambda b: [
        HeadPart(num_labels=4, pooling="cls", dense_size=3),
        *KINDS["scale of outputs"](b),
    ],
    "head over the pooler": lambda b: [
        HeadPart(num_labels=3, pooling="pooled", dense_size=6),
        *KINDS["override of norms"](b),
    ],
    "head over the pooler of a prompt": lambda b: [
        HeadPart(num_labels=3, pooling="pooled"),
        *KINDS["deep prompt with positions"](b),
    ],
    "head over the first row of a prompt": lambda b: [
        HeadPart(num_labels=3, pooling="cls"),
        *KINDS["prompt without positions"](b),
    ],
    "head over the mean behind a prompt": lambda b: [
        HeadPart(num_labels=3, pooling="mean"),
        *KINDS["everything"](b),
    ],
    "head over the last token behind a prefix": lambda b: [
        HeadPart(num_labels=3, pooling="last"),
        *KINDS["prefix that shifts"](b),
    ],
}
"""Classifiers, alone and above other parts; the pooler's where there is one."""


@dataclass(frozen=True)
class Answer:
    """Tokens with their best log-probabilities, the mean of hidden states, or a head's scores."""

    tokens: list[int] = field(default_factory=list)
    logprobs: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    vector: torch.Tensor = field(default_factory=lambda: torch.empty(0))
    scores: torch.Tensor = field(default_factory=lambda: torch.empty(0))


@dataclass
class World:
    """A backbone, its model, an artefact of every kind, and the reference's answers.

    ``saved`` are changes of the family's golden configuration, for a random model of it; without
    any the committed backbone is taken.
    """

    name: str
    saved: Mapping[str, Any] | None = None
    engines: list[Engine] = field(default_factory=list)
    _answers: dict[tuple[str | None, tuple[int, ...]], Answer] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.saved = SAVED.get(self.name) if self.saved is None else self.saved

    @cached_property
    def backbone(self) -> Backbone:
        if self.saved is None:
            return backbone_of(self.name)
        folder = Path(tempfile.mkdtemp(prefix=f"{self.name}-"))
        atexit.register(shutil.rmtree, folder)
        return save_generator(folder, self.name, vocab_size=64, **self.saved)

    @cached_property
    def weights(self) -> Weights:
        return load_weights(self.backbone, torch.float32)

    @cached_property
    def model(self) -> Any:
        model = model_of(self.backbone)
        if self.saved is not None:
            model.set_attn_implementation("eager")
        if self.can_generate:
            model.generation_config.eos_token_id = None
            model.generation_config.forced_eos_token_id = None
        return model

    @cached_property
    def bank(self) -> Artefact:
        return self._routing[0]

    @cached_property
    def _routing(self) -> tuple[Artefact, Artefact]:
        return routing_of(self.backbone, num_heads=2, num_skills=3)

    @cached_property
    def artefacts(self) -> dict[str, Artefact]:
        found = {
            kind: artefact_of(self.backbone, parts(self.backbone), seed=i)
            for i, (kind, parts) in enumerate({**KINDS, **self.heads}.items())
        }
        return {**found, "routing": self._routing[1]}

    @cached_property
    def loader(self) -> MemoryLoader:
        loader = MemoryLoader()
        loader.add(self.bank)
        for artefact in self.artefacts.values():
            loader.add(artefact)
        return loader

    @property
    def heads(self) -> dict[str, Parts]:
        """The classifiers that this backbone has a place for."""
        has_pooler = self.backbone.shapes.anatomy.pooler_path is not None
        return {kind: parts for kind, parts in HEADS.items() if "pooler" not in kind or has_pooler}

    @property
    def can_generate(self) -> bool:
        return self.backbone.shapes.anatomy.can_generate

    @property
    def is_encoder_decoder(self) -> bool:
        return bool(self.backbone.config.get("is_encoder_decoder"))

    def engine(self, **config: Any) -> Engine:
        engine = Engine(self.backbone, self.loader, EngineConfig(**config), weights=self.weights)
        self.engines.append(engine)
        return engine

    def inputs(self) -> list[tuple[int, ...]]:
        generator = torch.Generator().manual_seed(3)
        return [
            tuple(torch.randint(3, 60, (length,), generator=generator).tolist())
            for length in LENGTHS
        ]

    def newer(self, kind: str) -> str:
        """The name of an artefact with the parts of ``kind`` and other numbers, made once."""
        name = f"{kind}, newer"
        if name not in self.artefacts:
            old = self.artefacts[kind]
            if kind == "routing":
                self.artefacts[name] = routing_over(self.backbone, self.bank, seed=77)
            else:
                parts = old.manifest.parts
                self.artefacts[name] = artefact_of(self.backbone, parts, seed=len(self.artefacts))
            self.loader.add(self.artefacts[name])
        return name

    def has_head(self, kind: str | None) -> bool:
        """True where the artefact of that kind answers by a head of its own."""
        parts = () if kind is None else self.artefacts[kind].manifest.parts
        return any(part.primitive == "head" for part in parts)

    @contextmanager
    def adapted(self, kind: str | None) -> Iterator[Any]:
        """The reference's model for the artefact of that kind; None is the bare model."""
        if kind is None:
            yield self.model
            return
        artefact = self.artefacts[kind]
        bank = self.bank if artefact.manifest.kind == "routing" else None
        with applied(self.model, self.backbone, artefact, bank) as adapted:
            yield adapted

    def request(self, name: str, kind: str | None, ids: tuple[int, ...]) -> Request:
        digest = None if kind is None else self.artefacts[kind].digest
        if self.has_head(kind):
            return Request(name, "classify", digest, ids)
        if not self.can_generate:
            return Request(name, "embed", digest, ids)
        sampling = Sampling(max_tokens=NUM_TOKENS, ignore_eos=True, logprobs=NUM_TOP)
        return Request(name, "generate", digest, ids, sampling)

    def expected(self, kind: str | None, ids: tuple[int, ...]) -> Answer:
        """What the reference answers for the artefact of that kind; None is the bare model."""
        key = (kind, ids)
        if key not in self._answers:
            with self.adapted(kind) as adapted:
                self._answers[key] = self._answer(ids, adapted, has_head=self.has_head(kind))
        return self._answers[key]

    @torch.no_grad()
    def embedding(self, kind: str | None, ids: tuple[int, ...]) -> torch.Tensor:
        """The mean of the states (D,) that the reference's reading stack has of the tokens."""
        with self.adapted(kind):
            return self._mean(self._read(ids), ids)

    def _read(self, ids: tuple[int, ...]) -> torch.Tensor:
        reader = self.model.get_encoder() if self.is_encoder_decoder else self.model.base_model
        input_ids = torch.tensor([ids])
        mask = torch.ones_like(input_ids)
        hidden: torch.Tensor = reader(input_ids=input_ids, attention_mask=mask).last_hidden_state
        return hidden

    def _mean(self, hidden: torch.Tensor, ids: tuple[int, ...]) -> torch.Tensor:
        return torch.nn.functional.normalize(hidden[0, -len(ids) :].mean(0), dim=0)

    @torch.no_grad()
    def _answer(self, ids: tuple[int, ...], adapted: Any, *, has_head: bool) -> Answer:
        input_ids = torch.tensor([ids])
        mask = torch.ones_like(input_ids)
        if has_head:
            return Answer(scores=adapted.head(self._read(ids), mask)[0])
        if not self.can_generate:
            return Answer(vector=self._mean(self._read(ids), ids))
        found = self.model.generate(
            input_ids=input_ids,
            attention_mask=mask,
            max_new_tokens=NUM_TOKENS,
            do_sample=False,
            num_beams=1,
            output_logits=True,
            return_dict_in_generate=True,
        )
        logprobs = torch.cat(found.logits).log_softmax(1).topk(NUM_TOP, dim=1).values
        return Answer(found.sequences[0, -NUM_TOKENS:].tolist(), logprobs)

    def check(self, outcome: Outcome, kind: str | None, ids: tuple[int, ...]) -> None:
        """Assert that an outcome is what the reference answers."""
        expected = self.expected(kind, ids)
        assert outcome.code is None, (kind, outcome.events)
        for found, wanted in (
            (outcome.vector, expected.vector),
            (outcome.scores, expected.scores),
        ):
            own = torch.tensor([] if found is None else found)
            torch.testing.assert_close(own, wanted, atol=1e-5, rtol=1e-5)
        assert outcome.tokens == expected.tokens, kind
        tops = [e.top for e in outcome.events if isinstance(e, Token)]
        logprobs = torch.tensor([[p for _, p in top] for top in tops])
        torch.testing.assert_close(logprobs, expected.logprobs, atol=1e-4, rtol=0)

    def close(self) -> None:
        for engine in self.engines:
            engine.close()
