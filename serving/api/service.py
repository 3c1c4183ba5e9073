"""The service: everything a replica owns, behind the routers."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Self

from adapters_store.backbone import Backbone
from adapters_store.errors import IncompatibleError, UnavailableError
from adapters_store.signing import Trust
from adapters_store.store import Store
from serving.api.resolver import Resolver
from serving.api.served import ServedBackbone
from serving.api.text import Tokenizer
from serving.config import BackboneConfig, ServeConfig
from serving.core.client import CoreClient
from serving.engine.defaults import Defaults, generation_defaults
from serving.metrics import Metrics
from serving.observe import CoreObserver
from serving.snapshots import SnapshotFolder, render, snapshot
from serving.tenancy import KeyRing

SNAPSHOT_PERIOD_S = 1.0

_LOG = logging.getLogger(__name__)


class Service:
    """Store, cores, tokenizers, keys, trusted signers and metrics of one replica.

    ``start`` loads every backbone in a core of its own and waits until all are warm; ``close``
    ends them. ``replica`` names this replica in metrics. An async context manager does both.
    """

    def __init__(self, config: ServeConfig, replica: str | None = None) -> None:
        self.config = config.with_defaults()
        self.replica = replica or f"local-{uuid.uuid4().hex[:8]}"
        self.metrics = Metrics()
        self.keys = KeyRing(self.config.keys, self.config.development_key_hash)
        self.trust = Trust(self.config.signing)
        self.metrics.set("patchbay_build_info", 1, version=product_version())
        self._observers: list[CoreObserver] = []
        self._cores: list[CoreClient] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._folder: SnapshotFolder | None = None
        self._store: Store | None = None
        self._resolver: Resolver | None = None

    @property
    def store(self) -> Store:
        """The open store; raises :class:`UnavailableError` before start and after close."""
        if self._store is None:
            raise UnavailableError("the service is not started")
        return self._store

    @property
    def resolver(self) -> Resolver:
        """Resolves references; raises :class:`UnavailableError` before the backbones are up."""
        if self._resolver is None:
            raise UnavailableError("the backbones are still loading")
        return self._resolver

    async def start(self) -> None:
        """Open the store, start every core and wait until all are ready."""
        self._store = await asyncio.to_thread(Store.open, self.config.store)
        served = await asyncio.gather(*(self._serve(one) for one in self.config.backbones))
        fingerprints = [one.fingerprint for one in served]
        if len(set(fingerprints)) != len(fingerprints):
            names = ", ".join(one.name for one in served)
            raise IncompatibleError(f"two of the backbones {names} are the same model")
        await asyncio.to_thread(_register_backbones, self._store, served)
        self._resolver = Resolver(self._store, served, self.trust)
        if self.config.run_folder is not None:
            self._folder = SnapshotFolder(self.config.run_folder, self.replica)
            self._tasks.append(asyncio.create_task(self._leave_snapshots(self._folder)))

    async def close(self) -> None:
        """End the cores and close the store; safe to call twice and after a failed start."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(core.close() for core in self._cores))
        if self._folder is not None:
            self._folder.remove()
        if self._store is not None:
            self._store.close()
        self._tasks, self._cores, self._folder = [], [], None
        self._store = self._resolver = None

    async def __aenter__(self) -> Self:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def check(self) -> None:
        """Raise :class:`UnavailableError` when a core is gone or stalled."""
        for core, observer in zip(self._cores, self._observers):
            try:
                core.check(self.config.stall_timeout_s)
            except UnavailableError:
                observer.down()
                raise

    def metrics_text(self) -> str:
        """Prometheus text of every replica that shares the run folder."""
        own = snapshot(self.metrics.registry, self.replica)
        others = [] if self._folder is None else self._folder.read_others()
        return render([own, *others])

    async def _serve(self, config: BackboneConfig) -> ServedBackbone:
        observer = CoreObserver(self.metrics, config.name)
        core = CoreClient(config, self.config.engine, self.config.store, observer)
        self._observers.append(observer)
        self._cores.append(core)
        backbone, ready = await asyncio.gather(
            asyncio.to_thread(Backbone.from_folder, config.folder, name=config.name),
            core.start(self.config.start_timeout_s),
        )
        if ready.fingerprint != backbone.fingerprint:
            raise IncompatibleError(
                f"the folder {config.folder} changed while it was being loaded: the core has "
                f"{ready.fingerprint}, the replica {backbone.fingerprint}"
            )
        vocab_size = backbone.architecture.vocab_size
        tokenizer = await asyncio.to_thread(Tokenizer, config.folder, vocab_size)
        defaults = _defaults_of(backbone)
        return ServedBackbone(config.name, backbone, tokenizer, core, defaults)

    async def _leave_snapshots(self, folder: SnapshotFolder) -> None:
        while True:
            own = snapshot(self.metrics.registry, self.replica)
            await asyncio.to_thread(folder.write, own)
            await asyncio.sleep(SNAPSHOT_PERIOD_S)


def _defaults_of(backbone: Backbone) -> Defaults:
    """What requests leave out; a warning names what the folder wants and the engine does not do."""
    if not backbone.architecture.can_generate:
        return Defaults()
    defaults = generation_defaults(backbone)
    if defaults.not_applied:
        _LOG.warning(
            "%s: these generation settings of its folder are not applied: %s",
            backbone.name,
            ", ".join(defaults.not_applied),
        )
    return defaults


def _register_backbones(store: Store, served: Sequence[ServedBackbone]) -> None:
    records = store.backbones()
    known = {record.fingerprint for record in records}
    names = {record.name for record in records}
    for one in served:
        if one.fingerprint not in known:
            short = one.fingerprint.removeprefix("sha256:")[:8]
            name = one.name if one.name not in names else f"{one.name[:54]}-{short}"
            store.add_backbone(one.backbone, name=name)


def product_version() -> str:
    """Version of the installed distribution; ``source`` when run from a checkout."""
    try:
        return version("patchbay")
    except PackageNotFoundError:
        return "source"
