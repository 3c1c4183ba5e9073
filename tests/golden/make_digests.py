"""Record the content digests of all golden PEFT adapters: ``python tests/golden/make_digests.py``.

Run it after ``make_peft.py``, or after a change that is meant to import other tensors.
"""

from __future__ import annotations

import json
from pathlib import Path

from peft_cases import CASES

from adapters_store.backbone import Backbone
from adapters_store.families import MODEL_TYPES
from adapters_store.formats import make_plan
from adapters_store.formats.importing import import_from
from adapters_store.formats.source import FolderSource

GOLDEN = Path(__file__).parent


def digests() -> dict[str, dict[str, str]]:
    """Content digests by case and by the suffix of the artefact's name."""
    found = {}
    for name, case in CASES.items():
        if case.family not in MODEL_TYPES:
            continue
        backbone = Backbone.from_folder(GOLDEN / "backbones" / case.family).record
        source = FolderSource(GOLDEN / "peft" / name)
        if make_plan(source, backbone).inspection.verdict == "reject":
            continue
        artefacts = import_from(source, backbone)
        found[name] = {suffix: artefact.manifest.content_digest for suffix, artefact in artefacts}
    return found


if __name__ == "__main__":
    text = json.dumps(digests(), indent=2, sort_keys=True) + "\n"
    (GOLDEN / "peft" / "digests.json").write_text(text)
