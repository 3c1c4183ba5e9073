"""Which tokens end a generation of a backbone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from adapters_store.backbone import Backbone
from adapters_store.canonical import strict_json
from adapters_store.errors import IncompatibleError


def end_tokens(backbone: Backbone) -> frozenset[int]:
    """The backbone's end-of-sequence ids: one, several or none.

    ``generation_config.json`` decides where it names any, as in transformers' ``generate``, then
    ``config.json``, then the family. Raises :class:`IncompatibleError` for anything but token
    ids, InvalidArtefactError for a file that is not JSON.
    """
    path = backbone.folder / "generation_config.json"
    if path.is_file():
        document = strict_json(path.read_bytes(), f"{path}")
        if isinstance(document, dict) and document.get("eos_token_id") is not None:
            return _ids(document, f"{path}")
    if backbone.config.get("eos_token_id") is not None:
        return _ids(backbone.config, f"{backbone.folder / 'config.json'}")
    return frozenset(backbone.architecture.eos_token_ids)


def _ids(document: Mapping[str, Any], where: str) -> frozenset[int]:
    value = document["eos_token_id"]
    ids = value if isinstance(value, list) else [value]
    if not all(isinstance(one, int) and not isinstance(one, bool) for one in ids):
        raise IncompatibleError(
            f"eos_token_id of {where} is {value!r}; expected a token id or a list of them",
            hint="Correct the file; it is written by save_pretrained.",
        )
    return frozenset(ids)
