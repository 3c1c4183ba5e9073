"""What a core process is told at its start, as one line of JSON on its standard input."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from serving.config import BackboneConfig, EngineSection


class CoreSpec(BaseModel):
    """Backbone, engine limits, the store's folder or ``store.yaml``, and the socket to talk over.

    ``address`` is a ZeroMQ endpoint that the parent has bound; ``life_fd`` is the write end of a
    pipe whose closing tells the parent that the core is gone.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    backbone: BackboneConfig
    engine: EngineSection
    store: Path
    address: str
    life_fd: int
