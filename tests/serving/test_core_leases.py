"""What a core has in memory is leased: no collection takes it away while it is served."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import pytest
from live_server import LoopThread
from serve_kit import fill_store, text_adapter
from test_core_process import ask, collect, make_client

from adapters_store.backbone import Backbone
from adapters_store.errors import UnavailableError
from adapters_store.store import Store
from serving.core import leases as lease_module
from serving.core.leases import LeaseKeeper

NOW = {"restore_window_s": 0, "upload_age_s": 0}


def until(condition: Callable[[], bool], timeout_s: float = 30) -> None:
    give_up_at = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < give_up_at, "waited in vain"
        time.sleep(0.05)


def leased(store: Store) -> set[str]:
    return {lease.digest for lease in store.leases.list()}


def test_what_a_core_serves_outlives_its_deletion_until_the_core_ends(
    loop: LoopThread, byte_t5: Backbone, tmp_path: Path
) -> None:
    fill_store(tmp_path / "store", byte_t5)
    with Store.open(tmp_path / "store") as store:
        routed, bank = store.resolve("acme/routed"), store.resolve("acme/skills")
        upper = store.resolve("acme/upper")
        core = make_client(byte_t5, tmp_path / "store")
        loop.run(core.start(timeout_s=200))
        try:
            assert leased(store) == set()
            before = loop.run(collect(core, ask(routed.digest)))
            until(lambda: leased(store) == {routed.digest, bank.digest})
            assert all(lease.owner.startswith("tiny on ") for lease in store.leases.list())
            for name in ("acme/routed", "acme/skills", "acme/upper"):
                store.delete(name)
            report = store.collect(**NOW)
            assert [one.reference for one in report.purged] == [upper.reference]
            kept = {one.reference: one.why for one in report.kept}
            assert set(kept) == {routed.reference, bank.reference}
            assert kept[routed.reference][0].startswith("leased by tiny on ")
            assert loop.run(collect(core, ask(routed.digest))) == before
            assert store.tensors(routed.digest)
        finally:
            loop.run(core.close())
        until(lambda: leased(store) == set())
        assert {one.reference for one in store.collect(**NOW).purged} == set(kept)
        assert store.verify() == []


@pytest.fixture
def store(tmp_path: Path, byte_t5: Backbone):
    with Store.open(tmp_path / "store") as opened:
        opened.add_backbone(byte_t5, name="tiny-t5")
        yield opened


def digests(store: Store, backbone: Backbone, count: int) -> list[str]:
    batch = [(f"acme/t{seed}", text_adapter(backbone, seed)) for seed in range(count)]
    return [version.digest for version in store.publish_many(batch)]


def test_leases_follow_what_is_resident_and_are_given_back(
    store: Store, byte_t5: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "LOOK_S", 0.0)
    one, two = digests(store, byte_t5, 2)
    resident: set[str] = set()
    keeper = LeaseKeeper(store.leases, "tiny", lambda: set(resident))
    keeper.look()
    resident.add(one)
    keeper.look()
    until(lambda: leased(store) == {one})
    resident.add(two)
    keeper.look()
    until(lambda: leased(store) == {one, two})
    resident.remove(one)
    keeper.look()
    until(lambda: leased(store) == {two})
    keeper.close()
    assert leased(store) == set()


def test_leases_are_renewed_and_taken_again_after_they_were_lost(
    store: Store, byte_t5: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease_module, "LOOK_S", 0.0)
    monkeypatch.setattr(lease_module, "RENEW_S", 0.0)
    (one,) = digests(store, byte_t5, 1)
    keeper = LeaseKeeper(store.leases, "tiny", lambda: {one})
    keeper.look()
    until(lambda: leased(store) == {one})
    first = store.leases.list()[0].expires_at
    time.sleep(0.01)
    keeper.look()
    until(lambda: store.leases.list()[0].expires_at > first)
    store.leases.release(keeper.owner)
    keeper.look()
    until(lambda: leased(store) == {one})
    keeper.close()


def test_nothing_is_said_while_nothing_changes(
    store: Store, byte_t5: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = []
    keeper = LeaseKeeper(store.leases, "tiny", lambda: looks.append(1) or set())
    for _ in range(1000):
        keeper.look()
    assert len(looks) == 1
    keeper.close()
    assert store.leases.list() == []


def test_a_catalog_that_is_away_ends_nothing(
    store: Store,
    byte_t5: Backbone,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(lease_module, "LOOK_S", 0.0)
    monkeypatch.setattr(lease_module, "RENEW_S", 0.0)
    (one,) = digests(store, byte_t5, 1)
    hold = store.leases.hold
    is_away = True

    def flaky(owner: str, held: set[str], ttl_s: float) -> None:
        if is_away:
            raise UnavailableError("the catalog cannot be used: away")
        hold(owner, held, ttl_s)

    monkeypatch.setattr(store.leases, "hold", flaky)
    keeper = LeaseKeeper(store.leases, "tiny", lambda: {one})
    keeper.look()
    until(lambda: "could not be renewed" in caplog.text)
    is_away = False
    keeper.look()
    until(lambda: leased(store) == {one})
    keeper.close()
