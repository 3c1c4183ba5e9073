"""Tiny real models and artefacts for the store's tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import BertConfig, BertModel, T5Config, T5ForConditionalGeneration

from adapters_store.artefact import Artefact, build_artefact
from adapters_store.backbone import Backbone
from adapters_store.manifest import BankPart, HeadPart, LowRankPart, RoutingPart, TaskSignature
from adapters_store.store import Store

TEXT = TaskSignature(task="text2text", description="Echo.", max_input_tokens=64)
LABELS = TaskSignature(task="classification", labels=("no", "yes"), max_input_tokens=64)
NUM_SKILLS, NUM_HEADS, RANK = 3, 2, 2


def t5_config(**changes: Any) -> T5Config:
    values = {
        "vocab_size": 40,
        "d_model": 16,
        "d_kv": 4,
        "d_ff": 24,
        "num_layers": 2,
        "num_decoder_layers": 1,
        "num_heads": 2,
        "decoder_start_token_id": 0,
    }
    return T5Config(**(values | changes))


def bert_config() -> BertConfig:
    return BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
    )


def save_t5(folder: Path, *, seed: int = 0, **changes: Any) -> Path:
    torch.manual_seed(seed)
    T5ForConditionalGeneration(t5_config(**changes)).save_pretrained(folder)
    return folder


def save_bert(folder: Path, *, seed: int = 0) -> Path:
    torch.manual_seed(seed)
    BertModel(bert_config()).save_pretrained(folder)
    return folder


def low_rank(
    backbone: Backbone,
    *,
    sites: tuple[str, ...] = ("encoder.0.self.q", "encoder.1.ffn.in"),
    dtype: torch.dtype = torch.float32,
    seed: int = 1,
    signature: TaskSignature | None = None,
    provenance: dict[str, Any] | None = None,
) -> Artefact:
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    for name in sites:
        site = backbone.sites[name]
        a = torch.randn(site.in_features, RANK, generator=generator)
        b = torch.randn(RANK, site.out_features, generator=generator)
        tensors[f"{name}/low_rank/a"], tensors[f"{name}/low_rank/b"] = a.to(dtype), b.to(dtype)
    parts: list[Any] = [LowRankPart(site=name, rank=RANK, scale=0.5) for name in sites]
    chosen = signature or (TEXT if backbone.family.name == "t5" else LABELS)
    if chosen.task == "classification":
        parts.append(HeadPart(num_labels=len(chosen.labels), pooling="mean"))
        tensors |= head_tensors(backbone, len(chosen.labels), generator)
    return build_artefact(
        kind="adapter",
        backbone=backbone,
        parts=parts,
        tensors=tensors,
        signature=chosen,
        provenance={"seed": seed} if provenance is None else provenance,
    )


def head_tensors(
    backbone: Backbone, num_labels: int, generator: torch.Generator
) -> dict[str, torch.Tensor]:
    hidden_size = backbone.architecture.stacks[0].hidden_size
    return {
        "head/weight": torch.randn(num_labels, hidden_size, generator=generator),
        "head/bias": torch.randn(num_labels, generator=generator),
    }


def bank(
    backbone: Backbone,
    *,
    sites: tuple[str, ...] = ("encoder.0.self.q", "encoder.0.ffn.out", "encoder.1.self.v"),
    seed: int = 2,
) -> Artefact:
    generator = torch.Generator().manual_seed(seed)
    tensors: dict[str, torch.Tensor] = {}
    parts = []
    for name in sites:
        site = backbone.sites[name]
        a_shape = (NUM_HEADS, NUM_SKILLS, site.in_features // NUM_HEADS, RANK)
        b_shape = (NUM_HEADS, NUM_SKILLS, RANK, site.out_features // NUM_HEADS)
        tensors[f"{name}/mixture/a"] = torch.randn(a_shape, generator=generator)
        tensors[f"{name}/mixture/b"] = torch.randn(b_shape, generator=generator)
        parts.append(
            BankPart(site=name, rank=RANK, num_skills=NUM_SKILLS, num_heads=NUM_HEADS, scale=0.5)
        )
    return build_artefact(kind="bank", backbone=backbone, parts=parts, tensors=tensors)


def routing(
    backbone: Backbone,
    bank_artefact: Artefact,
    *,
    seed: int = 3,
    with_logits: bool = True,
    signature: TaskSignature | None = None,
) -> Artefact:
    generator = torch.Generator().manual_seed(seed)
    sites = tuple(part.site for part in bank_artefact.manifest.bank_parts)
    shape = (len(sites), NUM_HEADS, NUM_SKILLS)
    logits = torch.randn(shape, generator=generator)
    tensors = {"routing/weights": torch.sigmoid(logits)}
    if with_logits:
        tensors["routing/logits"] = logits
    parts: list[Any] = [RoutingPart(sites=sites, num_skills=NUM_SKILLS, num_heads=NUM_HEADS)]
    chosen = signature or (TEXT if backbone.family.name == "t5" else LABELS)
    if chosen.task == "classification":
        parts.append(HeadPart(num_labels=len(chosen.labels), pooling="cls"))
        tensors |= head_tensors(backbone, len(chosen.labels), generator)
    return build_artefact(
        kind="routing",
        backbone=backbone,
        parts=parts,
        tensors=tensors,
        signature=chosen,
        bank=bank_artefact.digest,
        provenance={"seed": seed},
    )


def open_store(folder: Path, *backbones: Backbone) -> Store:
    store = Store.open(folder)
    for backbone in backbones:
        store.add_backbone(backbone)
    return store


def contents(folder: Path) -> dict[str, bytes]:
    """Every blob file under a store with its bytes, temporary files too."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted((folder / "blobs").rglob("*"))
        if path.is_file()
    }
