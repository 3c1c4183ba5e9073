"""A trained backbone as a plain model folder: what artefacts bind to and serving loads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from adapters_store.backbone import Backbone
from adapters_store.names import check_name
from training.model import AdaptedModel

BACKBONE_FOLDER = "backbone"
"""Where a run's folder keeps the backbone that it trained, once it is published."""


def plain_weights(model: AdaptedModel) -> dict[str, torch.Tensor]:
    """The backbone's weights under the names they have without a method injected."""
    return {
        name.replace(".base.", "."): tensor
        for name, tensor in model.model.state_dict().items()
        if ".method." not in name
    }


def export_backbone(
    model: AdaptedModel,
    tokenizer: Any,
    folder: Path,
    *,
    dtype: torch.dtype = torch.bfloat16,
    name: str | None = None,
) -> Backbone:
    """Write model and tokenizer with ``save_pretrained``; returns the folder as a backbone.

    Do this before compiling: artefacts bind to the fingerprint of the weights as they are stored.
    """
    if name is not None:
        check_name(name, "backbone name")
    plain = type(model.model)(model.model.config)
    plain.load_state_dict(plain_weights(model))
    plain.tie_weights()
    plain.to(dtype).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Backbone.from_folder(folder, name=name)
