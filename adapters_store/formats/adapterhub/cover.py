"""Whether a method's parts stand where one configuration of ``adapters`` puts them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from adapters_store.errors import RejectedArtefactError


@dataclass(frozen=True, slots=True)
class Slot:
    """A place that one switch of the configuration fills, in every layer but those left out."""

    name: str
    switch: str
    layer: int


def cover(
    found: Iterable[str], slots: Iterable[Slot], always: frozenset[str] = frozenset()
) -> tuple[frozenset[str], list[int]]:
    """The switches to turn on and the layers to leave out so that exactly ``found`` is filled.

    Switches in ``always`` cannot be turned off. Raises RejectedArtefactError where the library has
    no such place, or fills more places than ``found``.
    """
    by_name = {slot.name: slot for slot in slots}
    names = set(found)
    unknown = sorted(names - set(by_name))
    if unknown:
        raise RejectedArtefactError(f"`adapters` puts nothing at {', '.join(unknown[:3])}")
    switches = frozenset(by_name[name].switch for name in names)
    filled = [slot for slot in by_name.values() if slot.switch in switches | always]
    layers = {by_name[name].layer for name in names}
    left_out = sorted({slot.layer for slot in filled} - layers)
    more = [slot.name for slot in filled if slot.layer in layers and slot.name not in names]
    if more:
        raise RejectedArtefactError(
            f"`adapters` fills {', '.join(more[:3])} as well: a method goes into all layers alike, "
            "but for layers that it leaves out whole"
        )
    return switches, left_out
