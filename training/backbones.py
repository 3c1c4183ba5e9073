"""Loading a backbone to train on: from a folder, a hub name, or from scratch by its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    ByT5Tokenizer,
)

from adapters_store.errors import UsageError
from adapters_store.families import Site, family_of
from training.recipe import BackboneSection


def load_tokenizer(section: BackboneSection) -> Any:
    """The tokenizer the section names; ``bytes`` is one token per UTF-8 byte, as ByT5."""
    name = section.tokenizer or section.source
    if name == "bytes":
        return ByT5Tokenizer(extra_ids=0)
    if name is None:
        raise UsageError("backbone.tokenizer is missing: a folder, a hub name or `bytes`")
    return AutoTokenizer.from_pretrained(name)


def load_model(section: BackboneSection, objective: str) -> Any:
    """The transformers model in float32: with a language head for text2text, bare otherwise."""
    factory = AutoModelForSeq2SeqLM if objective == "text2text" else AutoModel
    if section.scratch is not None:
        settings = dict(section.scratch)
        config = AutoConfig.for_model(settings.pop("model_type"), **settings)
        return factory.from_config(config, dtype=torch.float32)
    if section.source is None:
        raise UsageError("backbone needs `source` (a folder or hub name) or `scratch` settings")
    path = Path(section.source)
    if path.is_absolute() and not path.is_dir():
        raise UsageError(f"backbone folder {path} does not exist")
    return factory.from_pretrained(section.source, dtype=torch.float32)


def sites_of(model: Any) -> tuple[Site, ...]:
    """Every canonical site of a loaded transformers model."""
    config: dict[str, Any] = model.config.to_dict()
    return family_of(config).sites(config)
