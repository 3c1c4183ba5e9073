"""What every format knows how to do. The contract suite runs over the rows of the table."""

from __future__ import annotations

from typing import Protocol

from adapters_store.backbone import BackboneRecord
from adapters_store.formats.inspection import ImportOptions, Plan
from adapters_store.formats.source import Source
from adapters_store.limits import Limits


class Format(Protocol):
    """One foreign format. Implementations hold no state."""

    name: str

    def recognises(self, source: Source) -> bool:
        """True where the source's file names and discriminating key are this format's."""
        ...

    def plan(
        self, source: Source, backbone: BackboneRecord, options: ImportOptions, limits: Limits
    ) -> Plan:
        """What an import onto ``backbone`` would build, from configuration and header alone.

        Everything that is wrong is collected in one rejected inspection; only an unreadable source
        raises (InvalidArtefactError, UnsafeArtefactError, NotFoundError, UnavailableError).
        """
        ...
