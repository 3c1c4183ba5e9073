"""Reading a model's config.json with answers that name the key that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters_store.errors import IncompatibleError, InvalidArtefactError
from adapters_store.families.architecture import Activation

ACTIVATIONS: dict[str, Activation] = {
    "relu": "relu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "silu": "silu",
    "swish": "silu",
}
"""What the engine computes by the names that configurations give it."""


def positive_int(config: Mapping[str, Any], key: str) -> int:
    """A positive whole number of the configuration; raises InvalidArtefactError otherwise."""
    value = config.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        found = "missing" if key not in config else repr(value)
        raise InvalidArtefactError(
            f"{key} in config.json is {found}; expected a positive whole number",
            hint="Give the folder of a complete model, as save_pretrained writes it.",
        )
    return value


def optional_int(config: Mapping[str, Any], key: str, default: int) -> int:
    """As :func:`positive_int`, but ``default`` where the key is missing or null."""
    return default if config.get(key) is None else positive_int(config, key)


def divided(config: Mapping[str, Any], width_key: str, heads_key: str) -> int:
    """The width of one head; raises InvalidArtefactError where the heads do not divide it."""
    width, heads = positive_int(config, width_key), positive_int(config, heads_key)
    if width % heads:
        raise InvalidArtefactError(
            f"{heads_key} {heads} in config.json does not divide {width_key} {width}",
            hint="Give the folder of a complete model, as save_pretrained writes it.",
        )
    return width // heads


def check_no_cross_attention(config: Mapping[str, Any]) -> None:
    """Raise IncompatibleError where a model of one stack is built to read another one."""
    if config.get("add_cross_attention"):
        raise IncompatibleError(
            "add_cross_attention is set in config.json; expected a model of one stack"
        )


def activation_of(config: Mapping[str, Any], key: str, default: str) -> Activation:
    """The activation under ``key``; raises IncompatibleError for one that the engine lacks."""
    name = str(config.get(key, default))
    if name not in ACTIVATIONS:
        raise IncompatibleError(f"{key} {name!r}; known: {sorted(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def token_ids(config: Mapping[str, Any], key: str, default: int | None = None) -> tuple[int, ...]:
    """The token ids under ``key``: a number, a list of them, or null for none."""
    value = config.get(key, default)
    found = value if isinstance(value, list) else [] if value is None else [value]
    if not all(isinstance(one, int) and not isinstance(one, bool) for one in found):
        raise InvalidArtefactError(f"{key} in config.json is {value!r}; expected token ids")
    return tuple(found)


def token_id(config: Mapping[str, Any], key: str, default: int) -> int:
    """The first token id under ``key``; ``default`` where it is missing or null."""
    return next(iter(token_ids(config, key)), default)


def optional_float(config: Mapping[str, Any], key: str, default: float | None) -> float | None:
    """A number; ``default`` where the key is missing, None where it is null."""
    value = config.get(key, default)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise InvalidArtefactError(f"{key} in config.json is {value!r}; expected a number")
    return None if value is None else float(value)
