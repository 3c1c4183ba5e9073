"""Writing an artefact as a directory that ``adapters`` loads and that computes the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from adapters_store.artefact import Artefact
from adapters_store.backbone import Backbone, BackboneRecord
from adapters_store.errors import ConflictError, RejectedArtefactError
from adapters_store.formats.adapterhub.document import CONFIG_FILE
from adapters_store.formats.adapterhub.export_bottleneck import fill_bottleneck
from adapters_store.formats.adapterhub.export_lora import fill_low_rank, fill_scale
from adapters_store.formats.adapterhub.export_rows import fill_prefix, fill_prompt
from adapters_store.formats.adapterhub.format import WEIGHTS_FILE
from adapters_store.formats.adapterhub.head import HEAD_CONFIG_FILE, HEAD_WEIGHTS_FILE
from adapters_store.formats.adapterhub.outgoing import NAME, Outgoing
from adapters_store.primitives import head
from adapters_store.primitives.prompt import PromptPart
from adapters_store.validation import validate

if TYPE_CHECKING:
    import torch

RELEASE = "adapters.1.3.0"
FILLS: dict[str, Callable[[Outgoing], dict[str, Any]]] = {
    "bottleneck": fill_bottleneck,
    "low_rank": fill_low_rank,
    "scale": fill_scale,
    "prefix": fill_prefix,
    "prompt": fill_prompt,
}
"""By primitive; several become a union. A head travels beside them."""


def export_adapterhub(
    artefact: Artefact,
    backbone: Backbone | BackboneRecord,
    folder: str | Path,
    bank: Artefact | None = None,
) -> Path:
    """Write ``adapter_config.json`` and ``adapter.safetensors``, with a head both files of it.

    A routing with its ``bank`` is refused like any other part that the library does not have.
    Returns the folder. Raises ConflictError for a folder with files, RejectedArtefactError for
    parts that ``adapters`` cannot express, and what :func:`~adapters_store.validation.validate`
    raises.
    """
    record = backbone.record if isinstance(backbone, Backbone) else backbone
    validate(artefact, record, None if bank is None else bank.manifest)
    outgoing = Outgoing(artefact, record)
    primitives = dict.fromkeys(part.primitive for part in artefact.manifest.parts)
    methods = [name for name in primitives if name != "head"]
    unknown = [name for name in methods if name not in FILLS]
    if unknown or not methods:
        raise RejectedArtefactError(
            f"`adapters` has no method for {unknown[0] if unknown else 'a head alone'}; "
            f"known: {sorted(FILLS)}"
        )
    if {"low_rank", "scale"} <= set(methods):
        raise RejectedArtefactError("`adapters` does not join LoRA and IA3 in one adapter")
    members = [FILLS[name](outgoing) for name in methods]
    config = members[0]
    if len(members) > 1:
        config = {"architecture": "union", "configs": members}
    about = _about(outgoing, record)
    files = {CONFIG_FILE: about | {"config": config}}
    if artefact.manifest.head_part is not None:
        files[HEAD_CONFIG_FILE] = about | {"config": _head(outgoing)}
    return _write(Path(folder), files, outgoing)


def _about(outgoing: Outgoing, record: BackboneRecord) -> dict[str, Any]:
    return {
        "hidden_size": record.shapes.hidden_size,
        "model_class": outgoing.layout.adapter_class,
        "model_name": record.name,
        "model_type": outgoing.model_type,
        "name": NAME,
        "version": RELEASE,
    }


def _head(outgoing: Outgoing) -> dict[str, Any]:
    """The head's options; its tensors go to ``head_tensors``."""
    part, signature = outgoing.artefact.manifest.head_part, outgoing.artefact.manifest.signature
    assert part is not None
    assert signature is not None
    pooling = outgoing.layout.pooling
    is_pooled = part.pooling == "pooled" and pooling == "cls"
    if outgoing.parts(PromptPart) or not (is_pooled or part.pooling == pooling):
        raise RejectedArtefactError(
            f"the head pools {part.pooling!r}; one of `adapters` on {outgoing.model_type!r} pools "
            f"{pooling!r}, and none stands beside a prompt"
        )
    width = outgoing.shapes.hidden_size
    if part.dense_size not in (None, width):
        raise RejectedArtefactError(
            f"the head's dense layer has {part.dense_size} features; in `adapters` it has {width}"
        )
    last = 1 if part.dense_size is None else 4
    names = {f"{last}.weight": head.WEIGHT, f"{last}.bias": head.BIAS}
    if part.dense_size is not None:
        names |= {"1.weight": head.DENSE_WEIGHT, "1.bias": head.DENSE_BIAS}
    for key, name in names.items():
        outgoing.head_tensors[f"heads.{NAME}.{key}"] = outgoing.given[name]
    kind = "image_classification" if outgoing.model_type == "vit" else "classification"
    return {
        "head_type": kind,
        "num_labels": part.num_labels,
        "layers": 1 if part.dense_size is None else 2,
        "activation_function": "tanh",
        "label2id": {label: index for index, label in enumerate(signature.labels)},
        "use_pooler": is_pooled,
        "bias": True,
        "dropout_prob": None,
        **({"multilabel": False} if kind == "image_classification" else {}),
    }


def _write(folder: Path, documents: Mapping[str, Any], outgoing: Outgoing) -> Path:
    from safetensors.torch import save

    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConflictError(
            f"{folder} is not an empty folder", hint="Give a new folder to export to."
        )
    folder.mkdir(parents=True, exist_ok=True)
    for file, tensors in (
        (WEIGHTS_FILE, outgoing.tensors),
        (HEAD_WEIGHTS_FILE, outgoing.head_tensors),
    ):
        if tensors:
            (folder / file).write_bytes(save(_plain(tensors), metadata={"format": "pt"}))
    for file, document in documents.items():
        text = json.dumps(document, indent=2, sort_keys=True)
        (folder / file).write_text(text + "\n", encoding="utf-8")
    return folder


def _plain(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}
