"""Rotary positions as a configuration gives them, in the spelling of any release."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters_store.errors import IncompatibleError, InvalidArtefactError
from adapters_store.families.architecture import Rotary
from adapters_store.families.config import positive_int

Config = Mapping[str, Any]
KNOWN = ("default", "linear", "llama3", "dynamic")


def rotary_of(config: Config, default_theta: float = 10_000.0) -> Rotary:
    """The rotary positions that all layers of a model share.

    Raises IncompatibleError for a scaling that the engine lacks. ``dynamic`` changes nothing up
    to ``max_position_embeddings``, and the engine takes no longer sequences.
    """
    found = config.get("rope_scaling") or config.get("rope_parameters") or {}
    return _rotary(config, _mapping(found), float(config.get("rope_theta") or default_theta))


def layered_rotary_of(config: Config) -> tuple[Rotary, Rotary]:
    """Rotary positions of Gemma 3's full and sliding layers, in this order; raises as above."""
    both = _mapping(config.get("rope_parameters") or {})
    full = _mapping(both.get("full_attention") or {})
    full = {**full, **_mapping(config.get("rope_scaling") or {})}
    sliding = _mapping(both.get("sliding_attention") or {})
    return (
        _rotary(config, full, float(config.get("rope_theta") or 1_000_000.0)),
        _rotary(config, sliding, float(config.get("rope_local_base_freq") or 10_000.0)),
    )


def _mapping(value: Any) -> Config:
    if not isinstance(value, Mapping):
        raise InvalidArtefactError(
            f"the rotary parameters in config.json are {value!r}; expected an object"
        )
    return value


def _rotary(config: Config, found: Config, theta: float) -> Rotary:
    kind = found.get("rope_type", found.get("type", "default"))
    share = found.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    if kind not in KNOWN:
        raise IncompatibleError(f"rope_type is {kind!r}; the engine has {', '.join(KNOWN)}")
    if share not in (None, 1.0):
        raise IncompatibleError(f"partial_rotary_factor is {share!r}; the engine turns whole heads")
    theta = float(found.get("rope_theta", theta))
    if kind in ("default", "dynamic"):
        return Rotary(theta)
    factor = _number(found, "factor")
    if kind == "linear":
        return Rotary(theta, "linear", factor)
    original = config.get("original_max_position_embeddings") or found.get(
        "original_max_position_embeddings"
    )
    return Rotary(
        theta,
        "llama3",
        factor,
        _number(found, "low_freq_factor"),
        _number(found, "high_freq_factor"),
        int(original or positive_int(config, "max_position_embeddings")),
    )


def _number(found: Config, key: str) -> float:
    value = found.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
        raise InvalidArtefactError(
            f"{key} of the rotary parameters in config.json is {value!r}; expected a number above 0"
        )
    return float(value)
