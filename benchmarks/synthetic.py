"""Random backbones and artefacts of any size, for tests and benchmarks. Seeded and repeatable."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from adapters_store.artefact import Artefact, build_artefact, load_tensors
from adapters_store.backbone import Backbone
from adapters_store.errors import NotFoundError
from adapters_store.families.site import Site
from adapters_store.manifest import (
    BankPart,
    HeadPart,
    LowRankPart,
    Manifest,
    RoutingPart,
    TaskSignature,
)
from adapters_store.primitives.bottleneck import BottleneckPart
from adapters_store.primitives.prefix import PrefixPart
from adapters_store.primitives.scale import ScalePart


@dataclass(slots=True)
class MemoryLoader:
    """Artefacts by digest, in memory: an ``ArtefactLoader`` without a store."""

    artefacts: dict[str, Artefact] = field(default_factory=dict)

    def add(self, artefact: Artefact) -> str:
        """Keep ``artefact`` and return its digest."""
        self.artefacts[artefact.digest] = artefact
        return artefact.digest

    def load(self, digest: str) -> tuple[Manifest, dict[str, Tensor]]:
        """Manifest and tensors; raises NotFoundError for a digest that was never added."""
        artefact = self.artefacts.get(digest)
        if artefact is None:
            raise NotFoundError(f"no artefact {digest} in memory")
        return artefact.manifest, load_tensors(artefact)


def make_t5(folder: Path, *, seed: int = 0, liveliness: float = 1.0, **config: Any) -> Backbone:
    """Write a random T5 to ``folder``; keyword arguments go to ``T5Config``.

    ``liveliness`` multiplies what the sub-layers add to the residual, so that a small random
    model does not merely repeat its input token.
    """
    import transformers

    torch.manual_seed(seed)
    settings = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1, **config}
    model = transformers.T5ForConditionalGeneration(transformers.T5Config(**settings))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith((".o.weight", ".wo.weight")):
                parameter.mul_(liveliness)
            if "relative_attention_bias" in name:
                parameter.normal_(0, 0.5)
    model.save_pretrained(folder)
    return Backbone.from_folder(folder, name="random-t5")


def make_llama(folder: Path, *, seed: int = 0, **config: Any) -> Backbone:
    """Write a random Llama to ``folder``; keyword arguments go to ``LlamaConfig``."""
    import transformers

    torch.manual_seed(seed)
    settings = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, **config}
    transformers.LlamaForCausalLM(transformers.LlamaConfig(**settings)).save_pretrained(folder)
    return Backbone.from_folder(folder, name="random-llama")


def make_bert(folder: Path, *, seed: int = 0, **config: Any) -> Backbone:
    """Write a random BERT encoder to ``folder``; keyword arguments go to ``BertConfig``."""
    import transformers

    torch.manual_seed(seed)
    model = transformers.BertModel(transformers.BertConfig(**config))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
            elif "LayerNorm" not in name:
                parameter.mul_(4.0)
    model.save_pretrained(folder)
    return Backbone.from_folder(folder, name="random-bert")


def make_lora(
    backbone: Backbone,
    *,
    rank: int = 8,
    seed: int = 0,
    effect: float = 1.0,
    sites: Iterable[Site] | None = None,
    num_labels: int = 0,
    pooling: str = "mean",
) -> Artefact:
    """A random LoRA; ``effect`` is about the size of its addition relative to a unit input."""
    generator = torch.Generator().manual_seed(seed)
    parts: list[Any] = []
    tensors: dict[str, Tensor] = {}
    for site in backbone.sites.values() if sites is None else sites:
        own = min(rank, site.in_features, site.out_features)
        parts.append(LowRankPart(site=site.name, rank=own, scale=effect))
        a = torch.randn(site.in_features, own, generator=generator) * site.in_features**-0.5
        b = torch.randn(own, site.out_features, generator=generator) * own**-0.5
        tensors[f"{site.name}/low_rank/a"] = a
        tensors[f"{site.name}/low_rank/b"] = b
    if num_labels:
        _add_head(backbone, parts, tensors, num_labels, pooling, generator)
    task = "classification" if num_labels else "text2text"
    return build_artefact(
        kind="adapter",
        backbone=backbone,
        parts=parts,
        tensors=tensors,
        signature=_signature(task, num_labels),
        provenance={"seed": seed},
    )


def make_scale(backbone: Backbone, *, seed: int = 0) -> Artefact:
    """A random IA3: keys, values and what the feed-forward's last map reads."""
    parts = [
        ScalePart(site=name, side="input" if name.endswith("ffn.out") else "output")
        for name in backbone.sites
        if name.endswith((".k", ".v", ".ffn.out"))
    ]
    return _make(backbone, parts, seed, lambda noise: 1 + 0.1 * noise)


def make_bottleneck(backbone: Backbone, *, rank: int = 16, seed: int = 0) -> Artefact:
    """Random bottlenecks as Houlsby places them: behind every sub-layer."""
    parts = [
        BottleneckPart(block=block.name, rank=rank, activation="relu", reads="output", scale=1.0)
        for block in backbone.shapes.anatomy.blocks
    ]
    size = backbone.shapes.hidden_size**-0.5
    return _make(backbone, parts, seed, lambda noise: 0.3 * size * noise)


def make_prefix(backbone: Backbone, *, num_tokens: int = 16, seed: int = 0) -> Artefact:
    """Random key and value rows before every self-attention of the stack that writes."""
    parts = [
        PrefixPart(attention=one.name, num_tokens=num_tokens, shifts_positions=True)
        for one in backbone.shapes.anatomy.attentions
        if one.name.startswith("decoder") and one.name.endswith("self")
    ]
    return _make(backbone, parts, seed, lambda noise: 0.3 * noise)


def _make(
    backbone: Backbone, parts: Sequence[Any], seed: int, value: Callable[[Tensor], Tensor]
) -> Artefact:
    generator = torch.Generator().manual_seed(seed)
    specs = [spec for part in parts for spec in part.tensor_specs(backbone.shapes)]
    return build_artefact(
        kind="adapter",
        backbone=backbone,
        parts=parts,
        tensors={s.name: value(torch.randn(s.shape, generator=generator)) for s in specs},
        signature=_signature("text2text", 0),
        provenance={"seed": seed},
    )


def make_bank(
    backbone: Backbone,
    *,
    rank: int = 8,
    num_skills: int = 8,
    num_heads: int = 8,
    seed: int = 0,
    effect: float = 1.0,
    sites: Iterable[Site] | None = None,
) -> Artefact:
    """A random bank over the backbone's sites."""
    generator = torch.Generator().manual_seed(seed)
    K, H = num_skills, num_heads
    parts, tensors = [], {}
    for site in backbone.sites.values() if sites is None else sites:
        D, E = site.in_features, site.out_features
        parts.append(
            BankPart(site=site.name, rank=rank, num_skills=K, num_heads=H, scale=effect * K)
        )
        a = torch.randn(H, K, D // H, rank, generator=generator) * D**-0.5
        b = torch.randn(H, K, rank, E // H, generator=generator) * rank**-0.5
        tensors[f"{site.name}/mixture/a"] = a
        tensors[f"{site.name}/mixture/b"] = b
    return build_artefact(kind="bank", backbone=backbone, parts=parts, tensors=tensors)


def make_routing(
    backbone: Backbone,
    bank: Artefact,
    *,
    seed: int = 0,
    num_labels: int = 0,
    pooling: str = "mean",
) -> Artefact:
    """A random task over ``bank``: sigmoid gates normalised over the skills."""
    generator = torch.Generator().manual_seed(seed)
    bank_parts = bank.manifest.bank_parts
    K, H = bank_parts[0].num_skills, bank_parts[0].num_heads
    gates = torch.randn(len(bank_parts), H, K, generator=generator).mul(3).sigmoid()
    sites = tuple(part.site for part in bank_parts)
    parts: list[Any] = [RoutingPart(sites=sites, num_skills=K, num_heads=H)]
    tensors = {"routing/weights": gates / gates.sum(dim=2, keepdim=True)}
    if num_labels:
        _add_head(backbone, parts, tensors, num_labels, pooling, generator)
    return build_artefact(
        kind="routing",
        backbone=backbone,
        parts=parts,
        tensors=tensors,
        signature=_signature("classification" if num_labels else "text2text", num_labels),
        bank=bank.digest,
        provenance={"seed": seed},
    )


def _add_head(
    backbone: Backbone,
    parts: list[Any],
    tensors: dict[str, Tensor],
    num_labels: int,
    pooling: str,
    generator: torch.Generator,
) -> None:
    width = backbone.shapes.hidden_size
    parts.append(HeadPart(num_labels=num_labels, pooling="cls" if pooling == "cls" else "mean"))
    tensors["head/weight"] = torch.randn(num_labels, width, generator=generator) * width**-0.5
    tensors["head/bias"] = torch.randn(num_labels, generator=generator)


def _signature(task: str, num_labels: int) -> TaskSignature:
    labels = [f"label-{i}" for i in range(num_labels)]
    return TaskSignature.model_validate({"task": task, "labels": labels})
