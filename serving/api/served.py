"""One backbone as a replica serves it: its record, its tokenizer and its engine core."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from adapters_store.backbone import Backbone
from serving.api.text import Tokenizer
from serving.core.client import CoreClient
from serving.engine.defaults import Defaults

LONG_TEXT = 20_000


@dataclass(frozen=True, slots=True)
class ServedBackbone:
    """``name`` is the served model name of the bare backbone.

    ``defaults`` are those of its folder for requests that write text.
    """

    name: str
    backbone: Backbone
    tokenizer: Tokenizer
    core: CoreClient
    defaults: Defaults

    @property
    def fingerprint(self) -> str:
        """Digest of configuration and weights; adapters name it."""
        return self.backbone.fingerprint

    @property
    def reference(self) -> str:
        """The pinned form of the bare backbone: ``name@sha256:<hex>``."""
        return f"{self.name}@{self.fingerprint}"

    @property
    def can_generate(self) -> bool:
        """True for backbones with a language-model head."""
        return self.backbone.architecture.can_generate

    async def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of a prompt; long texts are tokenised off the event loop."""
        if len(text) < LONG_TEXT:
            return self.tokenizer.encode(text)
        return await asyncio.to_thread(self.tokenizer.encode, text)
