"""From an artefact to the forms the engine runs. Pure functions; they run in loader threads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from adapters_store.errors import IncompatibleError
from adapters_store.lazy import resolve
from serving.primitives import PRIMITIVES
from serving.primitives.mixture import Bank, Mixture
from serving.primitives.prepared import Prepared, Target
from serving.residency.item import Item
from serving.residency.loader import ArtefactLoader
from serving.servable import check_servable


def load(loader: ArtefactLoader, digest: str, fingerprint: str, *, pins: bool = False) -> Item:
    """Read one artefact; ``pins`` keeps its tensors where a CUDA device reads them fastest.

    Raises IncompatibleError when it belongs to another backbone, NotServedError when a part of it
    has no serving primitive.
    """
    manifest, tensors = loader.load(digest)
    if manifest.backbone != fingerprint:
        raise IncompatibleError(
            f"artefact {digest} was made for backbone {manifest.backbone}; "
            f"this engine serves {fingerprint}"
        )
    check_servable(manifest)
    if pins:
        tensors = {name: tensor.pin_memory() for name, tensor in tensors.items()}
    return Item.of(manifest, tensors)


def prepare(item: Item, target: Target, bank: Bank | None) -> Prepared:
    """Run the ``prepare`` of every primitive of an item and merge what they made.

    On a CUDA device the copies and products run on a stream of their own, beside the engine's
    steps, and are done when this returns.
    """
    if target.device.type != "cuda":
        return _prepare(item, target, bank)
    stream = _side_stream(target.device)
    with torch.cuda.stream(stream):
        prepared = _prepare(item, target, bank)
    stream.synchronize()
    steps = torch.cuda.default_stream(target.device)
    for tensor in tensors_of(prepared):
        tensor.record_stream(steps)
    return prepared


@cache
def _side_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def tensors_of(part: object) -> Iterator[Tensor]:
    """Every tensor within parts of a :class:`Prepared`, a bank's own left out of its tasks."""
    if isinstance(part, Tensor):
        yield part
    elif isinstance(part, Mapping):
        for value in part.values():
            yield from tensors_of(value)
    elif isinstance(part, tuple):
        for value in part:
            yield from tensors_of(value)
    elif is_dataclass(part):
        names = [one.name for one in fields(part)]
        own = [name for name in names if not (isinstance(part, Mixture) and name == "bank")]
        for name in own:
            yield from tensors_of(getattr(part, name))


def _prepare(item: Item, target: Target, bank: Bank | None) -> Prepared:
    by_primitive: dict[str, list[Any]] = {}
    for part in item.parts:
        by_primitive.setdefault(part.primitive, []).append(part)
    prepared = Prepared()
    with torch.inference_mode():
        device = target.device
        tensors = {name: t.to(device, non_blocking=True) for name, t in item.tensors.items()}
        for primitive, parts in by_primitive.items():
            function = resolve(PRIMITIVES, primitive, "serving primitive")
            extra = () if item.kind != "routing" or primitive != "routing" else (bank,)
            prepared = prepared.merged(function(parts, tensors, target, *extra))
    return prepared
