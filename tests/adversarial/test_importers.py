"""Every bad artefact is refused by the library with its own reason, and nothing is stored."""

from __future__ import annotations

import time
import tracemalloc
from collections import Counter
from pathlib import Path

import pytest
from adversarial_kit import file_named, state, take_in, write
from bases import BASES, files_of
from cases import CASES, FORMAT_BASES, Case
from golden_kit import golden_backbone
from mutations import setting
from places import PLACES, Place

from adapters_store.formats import FORMATS, ImportOptions, inspect
from adapters_store.formats.importing import import_from
from adapters_store.formats.reasons import REASONS
from adapters_store.formats.sources import open_source
from adapters_store.limits import MIB
from adapters_store.store import Store

Gate = tuple[Store, Path]
BOMBS = [
    case
    for case in CASES
    if "bomb" in case.name or case.name.startswith(("a header of", "a tensor of", "a document of"))
]
NEVER_ENDS = "(([a-zA-Z0-9_.]+)+)+!"


def test_the_table_is_large_and_covers_every_format() -> None:
    names = [(case.base, case.name) for case in CASES]
    assert len(set(names)) == len(names) >= 60
    formats = Counter(case.base.partition("/")[0] for case in CASES)
    assert set(formats) == set(FORMATS)
    assert min(formats.values()) >= 40
    codes = {case.code for case in CASES}
    assert codes >= set(REASONS) - {
        "unknown_format", "not_finite",
        "no_effect", "outside_targets", "recorded", "unmatched_target", "unused_tensor",
    }  # fmt: skip


@pytest.mark.parametrize("base", BASES)
def test_the_unbroken_adapters_are_taken(base: str, tmp_path: Path) -> None:
    source = open_source(str(write(files_of(base), tmp_path / "good")))
    assert import_from(source, golden_backbone(BASES[base]).record)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.base}: {case.name}")
def test_a_bad_artefact_is_refused_with_its_reason_and_nothing_is_stored(
    gate: Gate, case: Case, tmp_path: Path
) -> None:
    store, folder = gate
    files = files_of(case.base)
    case.change(files)
    source = open_source(str(write(files, tmp_path / "bad")))
    before = state(store, folder)
    fingerprint = golden_backbone(BASES[case.base]).fingerprint
    codes, words = take_in(store, source, fingerprint, ImportOptions(**case.options))
    assert case.code in codes, words
    assert case.words in words
    assert state(store, folder) == before


@pytest.mark.parametrize("base", FORMAT_BASES)
@pytest.mark.parametrize(
    ("place", "role"),
    [(place, role) for place in PLACES for role in place.files],
    ids=lambda one: one if isinstance(one, str) else one.name,
)
def test_a_folder_of_other_than_plain_files_is_refused(
    gate: Gate, base: str, place: Place, role: str, tmp_path: Path
) -> None:
    store, folder = gate
    files = files_of(base)
    bad = write(files, tmp_path / "bad")
    place.change(bad, file_named(role, files))
    before = state(store, folder)
    fingerprint = golden_backbone(BASES[base]).fingerprint
    codes, words = take_in(store, open_source(str(bad)), fingerprint, ImportOptions())
    assert place.code in codes, words
    assert place.words in words
    assert state(store, folder) == before


@pytest.mark.parametrize("case", BOMBS, ids=lambda case: f"{case.base}: {case.name}")
def test_what_announces_or_unfolds_to_much_takes_little_memory(
    gate: Gate, case: Case, tmp_path: Path
) -> None:
    files = files_of(case.base)
    case.change(files)
    source = open_source(str(write(files, tmp_path / "bad")))
    size = sum(len(data) for data in files.values())
    del files
    fingerprint = golden_backbone(BASES[case.base]).fingerprint
    tracemalloc.start()
    try:
        take_in(gate[0], source, fingerprint, ImportOptions(**case.options))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 * MIB + 8 * size


@pytest.mark.parametrize("key", ["rank_pattern", "alpha_pattern"])
@pytest.mark.parametrize("pattern", [NEVER_ENDS, "(a|a)*" * 20 + "!", "(.*)*x(.*)*y!", "(" * 5000])
def test_a_pattern_that_never_ends_is_answered_soon(tmp_path: Path, key: str, pattern: str) -> None:
    files = files_of("peft/t5-lora")
    setting(key, {pattern: 4})(files)
    _within(files, tmp_path, seconds=20)


@pytest.mark.parametrize("pattern", [NEVER_ENDS, "(.*)*x(.*)*y!", "(" * 5000])
def test_targets_that_never_end_are_answered_soon(tmp_path: Path, pattern: str) -> None:
    files = files_of("peft/t5-lora")
    setting("target_modules", pattern)(files)
    _within(files, tmp_path, seconds=20)


def _within(files: dict[str, bytes], tmp_path: Path, seconds: float) -> None:
    source = open_source(str(write(files, tmp_path / "bad")))
    started = time.process_time()
    inspection = inspect(source, golden_backbone("t5").record)
    assert inspection.verdict in ("convert", "reject")
    assert time.process_time() - started < seconds
