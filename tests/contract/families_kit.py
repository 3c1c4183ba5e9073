"""Tiny real models of every family, from the golden configurations, watched while they run."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AttentionInterface, AttentionMaskInterface, AutoConfig, AutoModel
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from adapters_store.families import Family, Site, family_of
from adapters_store.families.anatomy import Anatomy, Tap

GOLDEN = Path(__file__).parents[1] / "golden" / "families"
NUM_ROWS, NUM_TOKENS = 2, 7


@dataclass(frozen=True)
class Built:
    """A bare model (``AutoModel``) of random weights with what the tables say of it."""

    config: dict[str, Any]
    family: Family
    model: Any
    sites: tuple[Site, ...]
    anatomy: Anatomy

    def parameters(self) -> dict[str, torch.Tensor]:
        return dict(self.model.named_parameters(remove_duplicate=False))

    def run(self) -> Any:
        with torch.no_grad():
            return self.model(**model_inputs(self.model))


def golden_config(name: str) -> dict[str, Any]:
    config: dict[str, Any] = json.loads((GOLDEN / f"{name}.json").read_text())
    return config


@torch.no_grad()
def build(config: dict[str, Any], *, factory: Any = AutoModel, seed: int = 0) -> Any:
    """The model of that configuration; every parameter random, so that no norm is the identity."""
    torch.manual_seed(seed)
    settings = {key: value for key, value in config.items() if key != "model_type"}
    model = factory.from_config(AutoConfig.for_model(config["model_type"], **settings))
    for parameter in model.parameters():
        parameter.normal_(0.0, 0.3)
    return model.eval()


def built(config: dict[str, Any]) -> Built:
    family = family_of(config)
    return Built(config, family, build(config), family.sites(config), family.anatomy(config))


def model_inputs(model: Any) -> dict[str, torch.Tensor]:
    """Random inputs of the model's own kind: token ids, pixels or a spectrogram."""
    torch.manual_seed(1)
    config = model.config
    if model.main_input_name == "pixel_values":
        size = (NUM_ROWS, config.num_channels, config.image_size, config.image_size)
        return {"pixel_values": torch.randn(size)}
    if model.main_input_name == "input_values":
        return {"input_values": torch.randn(NUM_ROWS, config.max_length, config.num_mel_bins)}
    ids = torch.randint(3, config.vocab_size, (NUM_ROWS, NUM_TOKENS))
    return {"input_ids": ids} | (
        {"decoder_input_ids": ids[:, :4]} if config.is_encoder_decoder else {}
    )


@dataclass
class Watched:
    """What modules were called with and gave, by path, in one forward."""

    calls: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = field(default_factory=dict)
    outputs: dict[str, torch.Tensor] = field(default_factory=dict)

    def tapped(self, tap: Tap) -> torch.Tensor:
        args, keywords = self.calls[tap.module_path]
        value = args[tap.argument] if isinstance(tap.argument, int) else keywords[tap.argument]
        assert isinstance(value, torch.Tensor)
        return value


def watch(model: Any) -> Watched:
    """Run the model once with hooks on every module."""
    seen, handles = Watched(), []
    for path, module in model.named_modules():

        def hook(_: nn.Module, args: Any, keywords: Any, output: Any, path: str = path) -> None:
            seen.calls[path] = (args, keywords)
            first = output[0] if isinstance(output, tuple) else output
            if isinstance(first, torch.Tensor):
                seen.outputs[path] = first

        handles.append(module.register_forward_hook(hook, with_kwargs=True))
    with torch.no_grad():
        model(**model_inputs(model))
    for handle in handles:
        handle.remove()
    return seen


@contextmanager
def watched_attention(model: Any) -> Iterator[dict[str, tuple[int, int, int]]]:
    """By module path: query heads, key and value heads and head width that attention gets."""
    paths = {module: path for path, module in model.named_modules()}
    found: dict[str, tuple[int, int, int]] = {}

    def attend(module: nn.Module, query: Any, key: Any, value: Any, *_: Any, **__: Any) -> Any:
        assert key.shape == value.shape
        found[paths[module]] = (query.shape[1], key.shape[1], query.shape[-1])
        return query.transpose(1, 2).contiguous(), None

    AttentionInterface.register("watched", attend)
    AttentionMaskInterface.register("watched", ALL_MASK_ATTENTION_FUNCTIONS["sdpa"])
    model.set_attn_implementation("watched")
    yield found
