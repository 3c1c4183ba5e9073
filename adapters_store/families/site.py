"""Canonical sites: names for the places of a backbone where a primitive may act."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Site:
    """One linear map of a backbone under its canonical name.

    ``name`` is for example ``decoder.3.cross.q``; ``module_path`` is the dotted path of the
    Hugging Face module; ``in_features`` and ``out_features`` are widths in elements.
    """

    name: str
    module_path: str
    in_features: int
    out_features: int

    @property
    def role(self) -> str:
        """The part after the layer number, such as ``self.q`` or ``ffn.out``."""
        return self.name.split(".", 2)[2]

    @property
    def stack(self) -> str:
        """``encoder`` or ``decoder``."""
        return self.name.split(".", 1)[0]

    @property
    def layer(self) -> int:
        """The layer's index inside its stack, from 0."""
        return int(self.name.split(".", 2)[1])
