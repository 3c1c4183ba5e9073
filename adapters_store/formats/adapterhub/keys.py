"""Keys of ``adapters``' weight files: without the model's prefix, in present words."""

from __future__ import annotations

from collections.abc import Iterable

from adapters_store.backbone import BackboneRecord
from adapters_store.errors import InvalidArtefactError
from adapters_store.families import Family, load_family
from adapters_store.families.lookup import Lookup, lookup
from adapters_store.formats.adapterhub.draft import Held
from adapters_store.tensor_file import StoredTensor

LORAS = ".loras."
FORMER_NAMES = {
    "attention_text_task_adapters": "adapters",
    "attention_text_lang_adapters": "adapters",
    "layer_text_task_adapters": "adapters",
    "layer_text_lang_adapters": "adapters",
    "invertible_lang_adapters": "invertible_adapters",
}
"""Modules of releases before 2.0 of adapter-transformers, which the library still reads."""


def by_key(table: Iterable[StoredTensor], file: str, backbone: BackboneRecord) -> dict[str, Held]:
    """The tensors by key; raises InvalidArtefactError where two tensors claim one key.

    A save of a bare model has no prefix, one of a model with a head has the base model's. What is
    put into a linear map stands under the map's path, which may be another version's.
    """
    family = load_family(backbone.family)
    places = lookup(family, backbone.config)
    found: dict[str, Held] = {}
    for tensor in table:
        steps = tensor.name.split(".")
        key = _bare(".".join(FORMER_NAMES.get(step, step) for step in steps), family, places)
        if key in found:
            raise InvalidArtefactError(
                f"tensors {found[key].tensor.name!r} and {tensor.name!r} are for one place, {key!r}"
            )
        found[key] = Held(file, tensor)
    return found


def _bare(name: str, family: Family, places: Lookup) -> str:
    path, is_lora, rest = name.partition(LORAS)
    site = places.site(path) if is_lora else None
    if site is not None:
        return f"{site.module_path}{LORAS}{rest}"
    for prefix in family.prefixes:
        if name.startswith(prefix):
            return name.removeprefix(prefix)
    return name
