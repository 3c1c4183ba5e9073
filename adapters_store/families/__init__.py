"""Backbone families: from canonical sites to the modules and dimensions of a model.

A family is one record, found through a lazy table; its module may hold its close relatives too.
Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters_store.errors import IncompatibleError
from adapters_store.families.anatomy import Anatomy
from adapters_store.families.architecture import Architecture
from adapters_store.families.family import Family
from adapters_store.families.site import Site
from adapters_store.lazy import resolve

FAMILIES: dict[str, str] = {
    "t5": "adapters_store.families.t5:FAMILY",
    "bart": "adapters_store.families.bart:FAMILY",
    "bert": "adapters_store.families.bert:FAMILY",
    "roberta": "adapters_store.families.roberta:FAMILY",
    "distilbert": "adapters_store.families.distilbert:FAMILY",
    "gpt2": "adapters_store.families.gpt2:FAMILY",
    "llama": "adapters_store.families.llama:LLAMA",
    "mistral": "adapters_store.families.llama:MISTRAL",
    "qwen2": "adapters_store.families.qwen:QWEN2",
    "qwen3": "adapters_store.families.qwen:QWEN3",
    "gemma": "adapters_store.families.gemma:GEMMA",
    "gemma2": "adapters_store.families.gemma:GEMMA2",
    "gemma3_text": "adapters_store.families.gemma:GEMMA3_TEXT",
    "vit": "adapters_store.families.vit:VIT",
    "ast": "adapters_store.families.vit:AST",
}
MODEL_TYPES: dict[str, str] = {
    "t5": "t5",
    "mt5": "t5",
    "umt5": "t5",
    "bart": "bart",
    "mbart": "bart",
    "bert": "bert",
    "roberta": "roberta",
    "xlm-roberta": "roberta",
    "distilbert": "distilbert",
    "gpt2": "gpt2",
    "llama": "llama",
    "mistral": "mistral",
    "qwen2": "qwen2",
    "qwen3": "qwen3",
    "gemma": "gemma",
    "gemma2": "gemma2",
    "gemma3_text": "gemma3_text",
    "vit": "vit",
    "audio-spectrogram-transformer": "ast",
}


def load_family(name: str) -> Family:
    """The family of that name; raises :class:`~adapters_store.errors.UsageError` if unknown."""
    family: Family = resolve(FAMILIES, name, "backbone family")
    return family


def family_of(config: Mapping[str, Any]) -> Family:
    """The family that serves a model's ``model_type``; raises IncompatibleError if none does."""
    model_type = str(config.get("model_type"))
    if model_type not in MODEL_TYPES:
        raise IncompatibleError(
            f"config.json has model_type {model_type!r}; supported: {sorted(MODEL_TYPES)}",
            hint="Add a family file, or choose a backbone of a supported type.",
        )
    return load_family(MODEL_TYPES[model_type])


__all__ = [
    "FAMILIES",
    "MODEL_TYPES",
    "Anatomy",
    "Architecture",
    "Family",
    "Site",
    "family_of",
    "load_family",
]
