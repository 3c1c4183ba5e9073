"""Tiny random backbones and artefacts of any parts, for the tests of the reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

from adapters_store.artefact import Artefact, build_artefact
from adapters_store.backbone import Backbone
from adapters_store.manifest import TaskSignature
from adapters_store.primitives import Part
from adapters_store.primitives.head import HeadPart
from adapters_store.primitives.mixture import BankPart
from adapters_store.primitives.routing import RoutingPart

BACKBONES = Path(__file__).parents[2] / "golden" / "backbones"
PAD = 0


def backbone_of(name: str) -> Backbone:
    """A committed tiny backbone, such as ``llama``."""
    return Backbone.from_folder(BACKBONES / name)


def model_of(backbone: Backbone) -> Any:
    """The backbone's model in float32: with its language head where it writes text."""
    if not backbone.shapes.anatomy.can_generate:
        factory: Any = transformers.AutoModel
    elif backbone.config.get("is_encoder_decoder"):
        factory = transformers.AutoModelForSeq2SeqLM
    else:
        factory = transformers.AutoModelForCausalLM
    return factory.from_pretrained(backbone.folder, dtype=torch.float32).eval()


def artefact_of(
    backbone: Backbone,
    parts: Sequence[Part],
    tensors: Mapping[str, torch.Tensor] | None = None,
    *,
    seed: int = 0,
) -> Artefact:
    """An adapter of ``parts``; the tensors that are not given are random, of order one third."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, torch.Tensor] = {}
    for part in parts:
        for spec in part.tensor_specs(backbone.shapes):
            found[spec.name] = torch.randn(spec.shape, generator=generator) / 3
    return build_artefact(
        kind="adapter",
        backbone=backbone,
        parts=parts,
        tensors=found | dict(tensors or {}),
        signature=signature_of(backbone, parts),
    )


def signature_of(backbone: Backbone, parts: Sequence[Part]) -> TaskSignature:
    """A signature that fits: labels where there is a head, text where the backbone writes it."""
    for part in parts:
        if isinstance(part, HeadPart):
            labels = tuple(f"label-{i}" for i in range(part.num_labels))
            return TaskSignature(task="classification", labels=labels)
    is_text = backbone.shapes.anatomy.can_generate
    return TaskSignature(task="text2text" if is_text else "embedding", max_output_tokens=8)


def batch_of(backbone: Backbone, *, padding: str = "none", seed: int = 0) -> dict[str, Any]:
    """Three rows of 5, 7 and 3 tokens, padded on the side asked for, or of 6 tokens each."""
    generator = torch.Generator().manual_seed(seed)
    lengths = (6, 6, 6) if padding == "none" else (5, 7, 3)
    width = max(lengths)
    ids = torch.full((len(lengths), width), PAD)
    mask = torch.zeros_like(ids)
    for row, length in enumerate(lengths):
        columns = slice(width - length, width) if padding == "left" else slice(0, length)
        ids[row, columns] = torch.randint(3, 64, (length,), generator=generator)
        mask[row, columns] = 1
    batch = {"input_ids": ids, "attention_mask": mask}
    if backbone.config.get("is_encoder_decoder"):
        batch["decoder_input_ids"] = torch.randint(3, 64, (len(lengths), 4), generator=generator)
    return batch


@torch.no_grad()
def answer(model: Any, **inputs: Any) -> torch.Tensor:
    """Logits, or the last hidden state of a model without a language head."""
    outputs = model(**inputs)
    found: torch.Tensor = outputs.logits if "logits" in outputs else outputs.last_hidden_state
    return found


def routing_of(
    backbone: Backbone, *, num_heads: int, num_skills: int, rank: int = 2
) -> tuple[Artefact, Artefact]:
    """A random bank over every site, and a task over it."""
    generator = torch.Generator().manual_seed(num_heads)
    parts = [
        BankPart(site=name, rank=rank, num_skills=num_skills, num_heads=num_heads, scale=0.8)
        for name in backbone.sites
    ]
    specs = [spec for part in parts for spec in part.tensor_specs(backbone.shapes)]
    bank = build_artefact(
        kind="bank",
        backbone=backbone,
        parts=parts,
        tensors={s.name: torch.randn(s.shape, generator=generator) / 3 for s in specs},
    )
    weights = torch.rand(len(parts), num_heads, num_skills, generator=generator)
    return bank, _routing(backbone, bank, weights)


def routing_over(backbone: Backbone, bank: Artefact, *, seed: int) -> Artefact:
    """Another random task over a bank of :func:`routing_of`."""
    first = bank.manifest.bank_parts[0]
    shape = (len(bank.manifest.bank_parts), first.num_heads, first.num_skills)
    return _routing(
        backbone, bank, torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    )


def _routing(backbone: Backbone, bank: Artefact, weights: torch.Tensor) -> Artefact:
    _, num_heads, num_skills = weights.shape
    part = RoutingPart(sites=tuple(backbone.sites), num_skills=num_skills, num_heads=num_heads)
    return build_artefact(
        kind="routing",
        backbone=backbone,
        parts=[part],
        tensors={"routing/weights": weights},
        signature=signature_of(backbone, [part]),
        bank=bank.digest,
    )
