"""A publisher may die at any moment: what it acknowledged is complete, the rest is invisible."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from services.places import StorePlace
from store_kit import bank, low_rank, routing, save_t5

from adapters_store.artefact import write_artefact
from adapters_store.backbone import Backbone
from adapters_store.blobs.local import LocalBlobs

NUM_RANDOM_KILLS = 100
NUM_TIMED_BATCHES = 4
PUBLISHER = Path(__file__).with_name("publisher.py")
TESTS = PUBLISHER.parents[1]
Acknowledged = list[tuple[str, int, str]]


class Publisher:
    """The forking program, as the test drives it."""

    def __init__(self, folders: dict[str, str]) -> None:
        path = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
        self._process = subprocess.Popen(
            [sys.executable, str(PUBLISHER), json.dumps(folders)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._orders, self._answers = self._process.stdin, self._process.stdout

    def run(
        self,
        place: StorePlace,
        *,
        seed: int,
        batches: int = 0,
        trip: int = 0,
        kill_after_s: float | None = None,
    ) -> tuple[Acknowledged, dict[str, Any]]:
        """Let one child publish until it ends or dies; what it acknowledged, and its report."""
        order = {"catalog": place.catalog, "blobs": place.blobs, "seed": seed}
        self._orders.write(json.dumps(order | {"batches": batches, "trip": trip}) + "\n")
        self._orders.flush()
        acknowledged: Acknowledged = []
        report: dict[str, Any] = {}
        while (line := self._answers.readline().strip()) != "gone":
            assert line, "the publisher ended"
            if line.isdigit() and kill_after_s is not None:
                time.sleep(kill_after_s)
                os.kill(int(line), signal.SIGKILL)
            elif line.startswith("["):
                acknowledged.append(tuple(json.loads(line)))
            elif line.startswith("{"):
                report = json.loads(line)
        return acknowledged, report

    def close(self) -> None:
        self._orders.close()
        assert self._process.wait(timeout=30) == 0
        self._answers.close()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A backbone, and one artefact of each kind, in folders."""
    root = tmp_path_factory.mktemp("artefacts")
    backbone = Backbone.from_folder(save_t5(root / "model"))
    shared = bank(backbone)
    made = {"adapter": low_rank(backbone), "bank": shared, "routing": routing(backbone, shared)}
    for kind, artefact in made.items():
        write_artefact(artefact, root / kind)
    return {kind: str(root / kind) for kind in made} | {"model": str(root / "model")}


@pytest.fixture(scope="module")
def publisher(folders: dict[str, str]) -> Iterator[Publisher]:
    running = Publisher({kind: path for kind, path in folders.items() if kind != "model"})
    yield running
    running.close()


@pytest.fixture
def place(catalog_url: str, tmp_path: Path, folders: dict[str, str]) -> StorePlace:
    """An empty store that knows the backbone, over each catalog."""
    found = StorePlace(catalog_url, str(tmp_path / "blobs"))
    with found.open() as store:
        store.add_backbone(Backbone.from_folder(folders["model"]))
    return found


def check(place: StorePlace, acknowledged: Acknowledged) -> int:
    """All acknowledged versions are there, all visible ones whole, numbers without a gap.

    Returns how many versions are visible.
    """
    with place.open() as store:
        assert store.verify() == []
        seen = {}
        for newest in store.list(limit=1000):
            versions = store.versions(newest.full_name)
            numbers = sorted(version.number for version in versions)
            assert numbers == list(range(1, len(numbers) + 1))
            seen |= {(newest.full_name, version.number): version.digest for version in versions}
        missing = [one for one in acknowledged if seen.get((one[0], one[1])) != one[2]]
        assert missing == []
        assert store.audit.verify().is_sound
        return len(seen)


def check_leftovers_are_collected(place: StorePlace) -> None:
    """After ``collect`` the blobs are exactly those that versions need, and no file is half."""
    blobs = LocalBlobs(place.blobs)
    with place.open() as store:
        store.collect(upload_age_s=0)
        assert store.verify() == []
        needed = set()
        for newest in store.list(limit=1000):
            for one in store.versions(newest.full_name):
                needed |= {one.digest, one.manifest.data.digest}
    assert {entry.digest for entry in blobs.entries()} == needed
    assert blobs.uploads(0, remove=False) == 0


@pytest.mark.timeout(900)
def test_a_publisher_killed_at_every_step_leaves_nothing_torn(
    publisher: Publisher, place: StorePlace
) -> None:
    acknowledged, report = publisher.run(place, seed=0, batches=1)
    assert len(acknowledged) == 4
    step, has_ended = report["opening"], False
    while not has_ended:
        step += 1
        found, ended = publisher.run(place, seed=step, batches=1, trip=step)
        acknowledged += found
        has_ended = bool(ended)
    assert step - report["opening"] > 30
    check(place, acknowledged)
    check_leftovers_are_collected(place)
    check(place, acknowledged)


@pytest.mark.timeout(900)
def test_a_publisher_killed_at_a_hundred_random_moments_leaves_nothing_torn(
    publisher: Publisher, place: StorePlace
) -> None:
    moments = random.Random(20261124)
    began = time.monotonic()
    acknowledged, _ = publisher.run(place, seed=NUM_RANDOM_KILLS, batches=NUM_TIMED_BATCHES)
    longest_s = time.monotonic() - began
    for seed in range(NUM_RANDOM_KILLS):
        delay_s = moments.uniform(0.0, longest_s)
        found, report = publisher.run(place, seed=seed, kill_after_s=delay_s)
        assert report == {}
        acknowledged += found
        if seed % 50 == 49:
            check(place, acknowledged)
    assert len(acknowledged) > NUM_RANDOM_KILLS // 2
    check_leftovers_are_collected(place)
    check(place, acknowledged)
