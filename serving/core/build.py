"""From a core's spec to a warm engine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from adapters_store.backbone import Backbone
from adapters_store.errors import UnavailableError
from adapters_store.store import Store
from serving.core.leases import LeaseKeeper
from serving.core.loader import StoreLoader
from serving.core.spec import CoreSpec
from serving.engine import Engine, EngineConfig, Failed, Request, Sampling
from serving.engine.request import RequestKind

WARM_UP_ID = "warm-up"


@dataclass(frozen=True, slots=True)
class Core:
    """An engine, the loader that feeds it, its leases, and its backbone's fingerprint."""

    engine: Engine
    loader: StoreLoader
    leases: LeaseKeeper
    fingerprint: str


@contextmanager
def build_core(spec: CoreSpec, backbone: Backbone) -> Iterator[Core]:
    """Load the backbone's weights and open the store; both are closed at the end.

    Leases are given back then.
    """
    chosen = spec.backbone
    config = EngineConfig(dtype=chosen.dtype, device=chosen.device, **spec.engine.model_dump())
    with Store.open(spec.store) as store:
        loader = StoreLoader(store)
        engine = Engine(backbone, loader, config)
        leases = LeaseKeeper(store.leases, spec.backbone.name, engine.resident)
        try:
            yield Core(engine, loader, leases, backbone.fingerprint)
        finally:
            leases.close()
            engine.close()


def warm_up(engine: Engine) -> None:
    """Run one tiny row of the bare backbone; raises UnavailableError when that fails."""
    architecture = engine.backbone.architecture
    kind: RequestKind = "generate" if architecture.can_generate else "embed"
    token = min(3, architecture.vocab_size - 1)
    sampling = Sampling(max_tokens=2, ignore_eos=True)
    engine.submit(Request(WARM_UP_ID, kind, None, (token, token), sampling))
    while engine.has_work:
        for event in engine.step():
            if isinstance(event, Failed):
                raise UnavailableError(f"the warm-up of the engine failed: {event.message}")
