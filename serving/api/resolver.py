"""From the reference a caller wrote to the engine and the artefact that answer it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from adapters_store.errors import IncompatibleError, NotFoundError
from adapters_store.manifest import Manifest, TaskSignature
from adapters_store.names import Reference, parse_reference
from adapters_store.records import Version
from adapters_store.signing import Trust
from adapters_store.store import Store
from serving.api.served import ServedBackbone

MAX_CACHED = 50_000


@dataclass(frozen=True, slots=True)
class Target:
    """What answers a request. ``version`` and ``manifest`` are None for the bare backbone.

    ``payer`` is the tenant whose share the work counts against.
    """

    asked: str
    served: ServedBackbone
    version: Version | None = None
    manifest: Manifest | None = None
    payer: str = ""

    @property
    def digest(self) -> str | None:
        """Artefact digest, or None for the bare backbone."""
        return None if self.version is None else self.version.digest

    @property
    def resolved(self) -> str:
        """The pinned reference that usage and headers name."""
        return self.served.reference if self.version is None else self.version.reference

    @property
    def signature(self) -> TaskSignature | None:
        """The task's signature; None for the bare backbone."""
        return None if self.manifest is None else self.manifest.signature

    @property
    def headers(self) -> dict[str, str]:
        """Response headers that name the version."""
        return {"x-adapter-version": self.resolved}


class Resolver:
    """Resolves references against the store's present state; caches until a name changes."""

    def __init__(
        self, store: Store, served: Sequence[ServedBackbone], trust: Trust | None = None
    ) -> None:
        self._store = store
        self._trust = trust or Trust({})
        self._by_name = {one.name: one for one in served}
        self._by_fingerprint = {one.fingerprint: one for one in served}
        self._generation = -1
        self._cached: dict[Reference, tuple[Version, Manifest]] = {}

    @property
    def served(self) -> tuple[ServedBackbone, ...]:
        """Every served backbone in the configuration's order."""
        return tuple(self._by_name.values())

    def parse(self, model: str) -> Reference | None:
        """The reference of an adapter, or None for a served backbone's own name.

        Raises :class:`NotFoundError` for a bare name that is no backbone, InvalidNameError for
        text outside the grammar.
        """
        if model in self._by_name:
            return None
        if "/" not in model:
            known = ", ".join(self._by_name)
            raise NotFoundError(
                f"model {model[:120]!r} is not served here; backbones: {known}", param="model"
            )
        return parse_reference(model)

    async def resolve(self, model: str) -> Target:
        """The target of ``model``.

        Raises NotFoundError and DeletedError as the store does, UnsignedError where the tenant's
        artefacts must be signed and this one is not, and IncompatibleError where the adapter's
        backbone is not served by this application.
        """
        reference = self.parse(model)
        if reference is None:
            return Target(model, self._by_name[model])
        generation = self._store.generation()
        if generation != self._generation or len(self._cached) > MAX_CACHED:
            self._cached.clear()
            self._generation = generation
        found = self._cached.get(reference)
        if found is None:
            found = await asyncio.to_thread(self._read, reference)
            if self._generation == generation:
                self._cached[reference] = found
        version, manifest = found
        served = self._by_fingerprint.get(manifest.backbone)
        if served is None:
            raise IncompatibleError(
                f"{version.reference} belongs to backbone {manifest.backbone}; served here: "
                f"{', '.join(self._by_fingerprint)}",
                hint="Serve its backbone with `patchbay serve --backbone FOLDER`.",
            )
        if version.kind == "bank":
            raise NotFoundError(
                f"{version.reference} is a bank of skills, which answers nothing by itself",
                hint="Ask for a task that routes over it; see GET /v1/tasks.",
                param="model",
            )
        return Target(model, served, version, manifest)

    def _read(self, reference: Reference) -> tuple[Version, Manifest]:
        version = self._store.resolve(reference)
        if self._trust.requires_signature(version.tenant):
            kept = [one.signature for one in self._store.signatures.list(version.digest)]
            self._trust.check(version.tenant, version.digest, kept)
        return version, version.manifest
