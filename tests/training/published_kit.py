"""A published run, as the tests that share one see it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from adapters_store.artefact import Artefact
from adapters_store.backbone import Backbone
from adapters_store.store import Store
from training.run import Run


@dataclass(frozen=True)
class Published:
    """A finished run with its store."""

    folder: Path
    run: Run
    store: Store

    @property
    def backbone(self) -> Backbone:
        """The exported backbone."""
        return Backbone.from_folder(self.folder / "backbone")

    def artefact(self, name: str) -> Artefact:
        """The artefact published as ``acme/name``."""
        digest = self.store.resolve(f"acme/{name}").digest
        return Artefact(self.store.manifest(digest), self.store.data(digest))
