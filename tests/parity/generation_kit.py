"""Random models that write text, of every family, with requests and their expected answers."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import transformers
from merged_reference import generate, merged_model

from adapters_store.artefact import Artefact
from adapters_store.backbone import Backbone
from benchmarks.synthetic import MemoryLoader, make_bank, make_lora, make_routing
from serving.engine import Request, Sampling

GOLDEN = Path(__file__).parents[1] / "golden" / "families"
VOCAB = 40
_ADDS = re.compile(r"\.(o_proj|down_proj|c_proj|out_proj|fc2|o|wo)\.weight$")
"""Linear maps that write to the residual stream: made strong, lest a model repeat its input.

BART norms the sum behind them, which must keep the input."""


def _is_gain(name: str) -> bool:
    return name.endswith("weight") and re.search(r"norm|\bln_", name.lower()) is not None


@torch.no_grad()
def save_generator(folder: Path, model_type: str, seed: int = 0, **changes: object) -> Backbone:
    """A random model of the golden configuration, decisive in its choice of tokens."""
    torch.manual_seed(seed)
    settings = json.loads((GOLDEN / f"{model_type}.json").read_text()) | changes
    config = transformers.AutoConfig.for_model(**settings)
    is_seq2seq = config.is_encoder_decoder
    auto = transformers.AutoModelForSeq2SeqLM if is_seq2seq else transformers.AutoModelForCausalLM
    model = auto.from_config(config)
    for name, parameter in model.named_parameters():
        parameter.normal_(0.0, 0.3)
        if _is_gain(name) and not model_type.startswith("gemma"):
            parameter.add_(1.0)
        elif _ADDS.search(name) and model_type != "bart":
            parameter.mul_(4.0)
    if hasattr(model, "final_logits_bias"):
        model.final_logits_bias.normal_(0.0, 0.5)
    model.save_pretrained(folder)
    return Backbone.from_folder(folder, name="random-generator")


@dataclass
class Mix:
    """Requests of bare and adapted rows with the tokens that transformers gives for each."""

    backbone: Backbone
    loader: MemoryLoader
    requests: list[Request] = field(default_factory=list)
    expected: dict[str, list[int]] = field(default_factory=dict)
    artefacts: list[Artefact | None] = field(default_factory=list)
    bank: Artefact | None = None

    def add(self, task: int, inputs: Sequence[Sequence[int]], max_tokens: int) -> None:
        """A greedy row of the ``task``-th artefact for every input; answers are computed here."""
        artefact = self.artefacts[task]
        digest = None if artefact is None else artefact.digest
        sampling = Sampling(max_tokens=max_tokens)
        model = merged_model(self.backbone, artefact, self.bank)
        for ids in inputs:
            name = f"{task}-{len(ids)}"
            self.requests.append(Request(name, "generate", digest, tuple(ids), sampling))
            self.expected[name] = generate(model, ids, max_tokens)


def make_mix(
    backbone: Backbone, lengths: Sequence[int] = (1, 4, 9, 21), max_tokens: int = 10
) -> Mix:
    """Bare, low-rank of three ranks and sites, and routed rows, each with several lengths."""
    mix = Mix(backbone, MemoryLoader())
    mix.bank = make_bank(backbone, rank=2, num_skills=3, num_heads=2, effect=0.5)
    mix.loader.add(mix.bank)
    narrow = [site for site in backbone.sites.values() if site.role in ("self.k", "ffn.out")]
    mix.artefacts = [
        None,
        make_lora(backbone, rank=3, seed=1, effect=0.5),
        make_lora(backbone, rank=9, seed=2, effect=0.5),
        make_lora(backbone, rank=2, seed=3, effect=1.0, sites=narrow),
        make_routing(backbone, mix.bank, seed=4),
        make_routing(backbone, mix.bank, seed=5),
    ]
    for artefact in mix.artefacts:
        if artefact is not None:
            mix.loader.add(artefact)
    generator = torch.Generator().manual_seed(0)
    for task in range(len(mix.artefacts)):
        shapes = [(length,) for length in lengths]
        inputs = [torch.randint(3, VOCAB, shape, generator=generator).tolist() for shape in shapes]
        mix.add(task, inputs, max_tokens)
    return mix
