"""The golden adapters of ``adapters`` as tests use them: ``python adapterhub_kit.py OUT`` exports.

The exports are what ``verify_adapterhub.py`` loads into the library.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from adapterhub_cases import CASES, Case
from golden_kit import GOLDEN, golden_backbone

from adapters_store.artefact import Artefact
from adapters_store.formats.adapterhub.export import export_adapterhub
from adapters_store.formats.importing import import_from
from adapters_store.formats.pickles import convert_pickle
from adapters_store.formats.source import FolderSource

FOLDER = GOLDEN / "adapterhub"
CONVERTED = [case for case in CASES.values() if not case.reject]
REJECTED = [case for case in CASES.values() if case.reject]


def convert_pickled(parent: Path) -> Path:
    """A folder with every case that is saved as a pickle, as the converter makes it."""
    for case in CASES.values():
        if case.is_pickle:
            shutil.copytree(FOLDER / case.name / "adapter", parent / "pickled" / case.name)
    return convert_pickle(parent / "pickled", parent / "converted").folder


def source_of(case: Case, converted: Path) -> FolderSource:
    return FolderSource(converted / case.name if case.is_pickle else FOLDER / case.name / "adapter")


def imported(case: Case, converted: Path) -> Artefact:
    record = golden_backbone(case.backbone).record
    [(suffix, artefact)] = import_from(source_of(case, converted), record)
    assert suffix == ""
    return artefact


def exported(case: Case, converted: Path, out: Path) -> Path:
    return export_adapterhub(imported(case, converted), golden_backbone(case.backbone), out)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as temporary:
        made = convert_pickled(Path(temporary))
        for one in CONVERTED:
            print(exported(one, made, Path(sys.argv[1]) / one.name))
