"""Loading a backbone to train on: from a folder, a hub name, or from scratch by its settings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    ByT5Tokenizer,
)
from transformers.utils import logging

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
    """The transformers model in float32: bare for classification, else with a language head.

    Raises :class:`UsageError` where the model cannot learn that objective.
    """
    logging.disable_progress_bar()  # the run reports its own progress
    if section.scratch is not None:
        settings = dict(section.scratch)
        config = AutoConfig.for_model(settings.pop("model_type"), **settings)
        model = _factory(config, objective).from_config(config, dtype=torch.float32)
        if section.local_bias_peak is not None:
            start_local(model, section.local_bias_peak)
        return model
    if section.source is None:
        raise UsageError("backbone needs `source` (a folder or hub name) or `scratch` settings")
    path = Path(section.source)
    if path.is_absolute() and not path.is_dir():
        raise UsageError(f"backbone folder {path} does not exist")
    factory = _factory(AutoConfig.from_pretrained(section.source), objective)
    return factory.from_pretrained(section.source, dtype=torch.float32)


def _factory(config: Any, objective: str) -> Any:
    """The class of transformers that builds a model for the objective."""
    values: dict[str, Any] = config.to_dict()
    kind, anatomy = config.model_type, family_of(values).anatomy(values)
    if hasattr(config, "patch_size"):
        raise UsageError(f"a {kind} backbone reads patches; recipes train on text")
    if objective == "classification":
        if config.is_encoder_decoder:
            raise UsageError(f"classification pools one stack; {kind} is an encoder-decoder")
        return AutoModel
    if not anatomy.can_generate:
        raise UsageError(f"a {kind} backbone writes no text; train classification on it")
    return AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM


@torch.no_grad()
def start_local(model: Any, peak: float) -> None:
    """Start some heads of a T5-style model on near tokens instead of everywhere.

    Three encoder heads look at the previous, the next and the second-previous token, two decoder
    heads at the token itself and the one before; ``peak`` is their bias before the softmax. A
    random bias needs thousands of steps to grow that sharp at Adam's step size, and copying, which
    most text transformations consist of, waits for it.
    """
    encoder = model.encoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    decoder = model.decoder.block[0].layer[0].SelfAttention.relative_attention_bias.weight
    encoder.zero_()
    decoder.zero_()
    num_one_sided = encoder.shape[0] // 2  # buckets from there on are for tokens to the right
    for head, bucket in enumerate((1, num_one_sided + 1, 2)):
        encoder[bucket, head] = peak
    for head, bucket in enumerate((0, 1)):
        decoder[bucket, head] = peak


def sites_of(model: Any) -> tuple[Site, ...]:
    """Every canonical site of a loaded transformers model."""
    config: dict[str, Any] = model.config.to_dict()
    return family_of(config).sites(config)
