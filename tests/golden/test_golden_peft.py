"""Golden PEFT adapters: what is imported is what PEFT wrote, tensor by tensor."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from peft_cases import CASES

from adapters_store.backbone import Backbone
from adapters_store.families import MODEL_TYPES
from adapters_store.formats import ImportOptions
from adapters_store.formats.importing import import_from
from adapters_store.formats.peft import PEFT_METHODS
from adapters_store.formats.source import FolderSource

GOLDEN = Path(__file__).parent
DIGESTS = json.loads((GOLDEN / "peft" / "digests.json").read_text())
MAX_BYTES = 3 * 2**20
READY = [
    name
    for name, case in CASES.items()
    if case.family in MODEL_TYPES and case.make().peft_type in PEFT_METHODS
]


@pytest.mark.parametrize("name", READY)
def test_a_golden_adapter_keeps_its_content(name: str):
    backbone = Backbone.from_folder(GOLDEN / "backbones" / CASES[name].family)
    source = FolderSource(GOLDEN / "peft" / name)
    found = import_from(source, backbone.record, ImportOptions())
    contents = {suffix: artefact.manifest.content_digest for suffix, artefact in found}
    assert contents == DIGESTS[name]


def test_golden_files_stay_small():
    files = [path for path in GOLDEN.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < MAX_BYTES
