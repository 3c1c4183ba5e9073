"""Reading a model's config.json with answers that name the key that is wrong."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters_store.errors import IncompatibleError, InvalidArtefactError


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
