"""Sound adapters that the table breaks: golden files of other tools, and one of this product."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from golden_kit import GOLDEN, golden_backbone
from mutations import Files
from safetensors.torch import save

from adapters_store.artefact import build_artefact
from adapters_store.backbone import Backbone
from adapters_store.manifest import LowRankPart, TaskSignature

SITES = ("encoder.0.self.q", "decoder.1.ffn.out")
BASES: Mapping[str, str] = {
    "patchbay": "t5",
    "peft/t5-lora": "t5",
    "peft/t5-ia3": "t5",
    "peft/t5-prompt": "t5",
    "peft/t5-prefix": "t5",
    "peft/t5-poly": "t5",
    "peft/t5-poly-heads": "t5",
    "peft/t5-norms": "t5",
    "peft/bert-lora-classifier": "bert",
    "peft/bert-prefix": "bert",
    "adapterhub/t5-seq_bn": "t5",
    "adapterhub/t5-ia3": "t5",
    "adapterhub/bert-compacter": "bert",
    "adapterhub/bert-head": "bert",
    "adapterhub/bert-lora": "bert",
    "adapterhub/bert-prompt_tuning": "bert",
    "mttl_mhr/t5-poly": "t5",
    "mttl/t5-expert": "t5",
}
"""By name: the golden backbone that each is for."""


@lru_cache
def _files(base: str) -> Mapping[str, bytes]:
    if base == "patchbay":
        return _native(golden_backbone("t5"))
    if base in _MTTL:
        return _MTTL[base]()
    folder = GOLDEN / base
    folder = folder / "adapter" if base.startswith("adapterhub") else folder
    return {
        path.name: path.read_bytes()
        for path in folder.iterdir()
        if path.name != "expected.safetensors"
    }


def files_of(base: str) -> Files:
    """The files of a sound adapter, to be changed."""
    return dict(_files(base))


def _native(backbone: Backbone) -> Mapping[str, bytes]:
    generator = torch.Generator().manual_seed(5)
    tensors = {}
    for name in SITES:
        site = backbone.sites[name]
        tensors[f"{name}/low_rank/a"] = torch.randn(site.in_features, 2, generator=generator)
        tensors[f"{name}/low_rank/b"] = torch.randn(2, site.out_features, generator=generator)
    artefact = build_artefact(
        kind="adapter",
        backbone=backbone,
        parts=[LowRankPart(site=name, rank=2, scale=0.5) for name in SITES],
        tensors=tensors,
        signature=TaskSignature(task="text2text"),
    )
    return {"manifest.json": artefact.manifest.canonical, "data.safetensors": artefact.data}


def _mttl(document: Mapping[str, Any], name: str, shapes: Mapping[str, Sequence[int]]) -> Files:
    """One file of weights and one that says what they are, as a conversion writes them."""
    stem = name.partition(".")[0]
    generator = torch.Generator().manual_seed(5)
    tensors = {one: torch.randn(*shape, generator=generator) for one, shape in shapes.items()}
    return {f"{stem}.safetensors": save(tensors), name: json.dumps(document).encode()}


def _mttl_release() -> Files:
    options = {"model_modifier": "poly", "n_skills": 3, "n_splits": 2, "lora_rank": 2}
    shapes = {
        "lora_a": (2, 3, 16, 2),
        "lora_b": (2, 3, 2, 16),
        "selector.module_logits": (2, 6),
    }
    stored = {f"model.{path}.{end}": shape for path in _PATHS for end, shape in shapes.items()}
    return _mttl({"hyper_parameters": options}, "best_model.ckpt.json", stored)


def _mttl_expert() -> Files:
    config = {"class_name": "mttl.models.modifiers.lora.LoRAConfig", "lora_rank": 2}
    stored = {f"{path}.lora_a": (32, 2) for path in _PATHS}
    stored |= {f"{path}.lora_b": (2, 32) for path in _PATHS}
    return _mttl({"expert_name": "rte", "expert_config": config}, "rte.meta.json", stored)


_PATHS = tuple(f"encoder.block.{layer}.layer.0.SelfAttention.q" for layer in range(2))
_MTTL: Mapping[str, Callable[[], Files]] = {
    "mttl_mhr/t5-poly": _mttl_release,
    "mttl/t5-expert": _mttl_expert,
}
