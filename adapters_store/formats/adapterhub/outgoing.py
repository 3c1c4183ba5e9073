"""What is written for ``adapters``: per method a configuration, and tensors under its keys."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, TypeVar

from adapters_store.artefact import Artefact, load_tensors
from adapters_store.backbone import BackboneRecord
from adapters_store.errors import RejectedArtefactError
from adapters_store.formats.adapterhub.layout import LAYOUTS
from adapters_store.primitives import Part

if TYPE_CHECKING:
    import torch

NAME = "task"
"""The adapter's own name, which keys carry."""

PartType = TypeVar("PartType", bound=Part)


class Outgoing:
    """Collects the tensors of one adapter on one backbone; raises RejectedArtefactError where the
    library does not know the type of model."""

    def __init__(self, artefact: Artefact, backbone: BackboneRecord) -> None:
        self.model_type = str(backbone.config.get("model_type"))
        if self.model_type not in LAYOUTS:
            raise RejectedArtefactError(
                f"`adapters` is written for {sorted(LAYOUTS)}; {backbone.name} is of model_type "
                f"{self.model_type!r}"
            )
        self.layout = LAYOUTS[self.model_type]
        self.artefact = artefact
        self.shapes = backbone.shapes
        self.given = load_tensors(artefact)
        self.tensors: dict[str, torch.Tensor] = {}
        self.head_tensors: dict[str, torch.Tensor] = {}

    def parts(self, kind: type[PartType]) -> list[PartType]:
        """The artefact's parts of one type, in the manifest's order."""
        return [part for part in self.artefact.manifest.parts if isinstance(part, kind)]


def only(values: Iterable[Any], what: str) -> Any:
    """The one value that all parts share; raises RejectedArtefactError where there are several."""
    found = list(dict.fromkeys(values))
    if len(found) != 1:
        raise RejectedArtefactError(
            f"{what} is {', '.join(map(str, found[:4]))} in different places; a configuration of "
            "`adapters` has one"
        )
    return found[0]
