"""LoRA: ``low_rank`` parts with their scale resolved per module, biases as overrides, a head."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Generic, TypeVar

from adapters_store.errors import InvalidArtefactError
from adapters_store.families.site import Site
from adapters_store.formats.convert import transposed
from adapters_store.formats.draft import Draft, piece
from adapters_store.formats.peft import biases, saved
from adapters_store.formats.peft.biases import B_BIAS, BASE_BIAS
from adapters_store.formats.peft.modules import Module, group, sites
from adapters_store.formats.peft.patterns import Meter, Pattern
from adapters_store.formats.peft.settings import FactorSettings, LoraSettings
from adapters_store.formats.peft.targets import report_targets
from adapters_store.primitives.low_rank import LowRankPart

Value = TypeVar("Value")

A, B = ".lora_A.weight", ".lora_B.weight"
_SAVE = "model.save_pretrained(folder, path_initial_model_for_weight_conversion=initial_folder)"
_MUTATING = {
    "pissa": _SAVE,
    "olora": _SAVE,
    "corda": _SAVE,
    "lora_ga": _SAVE,
    "loftq": "model.merge_and_unload(), then the merged model as a backbone of its own",
}
_INITIAL = ("gaussian", "eva", "orthogonal", "mica")


def plan(draft: Draft, settings: LoraSettings) -> None:
    """Add what the adapter becomes to ``draft``, or the reasons why it cannot be."""
    check_initialisation(draft, settings)
    saved.refuse_embeddings(draft)
    biases.drop_copies(draft, settings.bias)
    try:
        scales = Scales(draft, settings)
    except InvalidArtefactError as error:
        draft.reject("unsupported_option", error.message, "rank_pattern, alpha_pattern")
        return draft.stop()
    placed = list(sites(draft, group(draft, (A, B, B_BIAS, BASE_BIAS)), settings.task_type))
    for module, site in placed:
        _add(draft, settings, scales, module, site)
    saved.plan(draft, settings)
    biases.plan_others(draft, settings.bias)
    report_targets(draft, settings, placed)
    if settings.fan_in_fan_out:
        draft.note("recorded", "fan_in_fan_out concerns merging only", "fan_in_fan_out")


def _add(draft: Draft, settings: LoraSettings, scales: Scales, module: Module, site: Site) -> None:
    path, names = module.path, module.names
    if not {A, B} <= set(names):
        draft.drop(module.names.values())
        absent = ", ".join(repr(f"{path}{end}") for end in (A, B) if end not in names)
        draft.reject("missing_tensor", f"module {path!r} has no {absent}", path)
        return
    stored = draft.tensors[names[A]].shape
    rank = stored[0] if len(stored) == 2 else 0
    a = draft.take(names[A], (None, site.in_features))
    b = draft.take(names[B], (site.out_features, rank))
    scale = scales.of(path, rank)
    if scale is None:
        return draft.drop(module.names.values())
    if a is not None and b is not None:
        stem = f"{site.name}/low_rank"
        draft.add(
            LowRankPart(site=site.name, rank=rank, scale=scale),
            piece(f"{stem}/a", transposed, a),
            piece(f"{stem}/b", transposed, b),
        )
    biases.plan_site(draft, settings.bias, module, site, scale if settings.lora_bias else None)


class Scales:
    """Rank and alpha per module, as the patterns give them: the first that matches decides."""

    def __init__(self, draft: Draft, settings: LoraSettings) -> None:
        self._draft, self._settings = draft, settings
        self._ranks = _Patterns(settings.rank_pattern or {}, draft.meter)
        self._alphas = _Patterns(settings.alpha_pattern or {}, draft.meter)

    def of(self, path: str, rank: int) -> float | None:
        """The scale of a module whose tensors have ``rank``; None, with the reason, where the
        configuration says another rank or its patterns cannot be read."""
        try:
            expected = self._ranks.of(path, self._settings.r)
            alpha = self._alphas.of(path, self._settings.lora_alpha)
        except InvalidArtefactError as error:
            self._draft.reject("unsupported_option", error.message, path)
            return None
        if rank != expected:
            self._draft.reject(
                "rank_mismatch",
                f"the tensors of {path!r} have rank {rank}; r and rank_pattern say {expected}",
                path,
            )
            return None
        return alpha / (math.sqrt(rank) if self._settings.use_rslora else rank)


class _Patterns(Generic[Value]):
    """A mapping from expressions to values."""

    def __init__(self, values: Mapping[str, Value], meter: Meter) -> None:
        self._values = [
            (Pattern(text, meter, is_ending=True), value) for text, value in values.items()
        ]

    def of(self, path: str, default: Value) -> Value:
        """The value of the first expression that matches the path or what follows a dot of it."""
        for pattern, value in self._values:
            if pattern.matches(path):
                return value
        return default


def check_initialisation(draft: Draft, settings: FactorSettings) -> None:
    """Reject the initialisations after which the factors belong to another base model."""
    name = settings.init_lora_weights
    if not isinstance(name, str) or name.lower() in _INITIAL:
        return
    method = name.lower().partition("_niter_")[0]
    if method in _MUTATING:
        draft.reject(
            "unsupported_option",
            f"init_lora_weights {name!r} changes the base model's weights, so that the factors "
            f"belong to another model; convert it with {_MUTATING[method]}",
            "init_lora_weights",
        )
    else:
        draft.reject(
            "unknown_option",
            f"init_lora_weights {name!r} is not known; known: {sorted({*_MUTATING, *_INITIAL})}",
            "init_lora_weights",
        )
