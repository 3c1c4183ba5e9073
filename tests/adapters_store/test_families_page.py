"""The page on families says what the tables say."""

from __future__ import annotations

import json
import re
from pathlib import Path

from adapters_store.errors import IncompatibleError
from adapters_store.families import FAMILIES, MODEL_TYPES, family_of

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "registry" / "families.md").read_text(encoding="utf-8")


def rows() -> dict[str, tuple[list[str], str]]:
    """Model types and the engine's column by family, in the page's order."""
    table = PAGE.split("| family |", 1)[1].split("\n\n", 1)[0]
    found: dict[str, tuple[list[str], str]] = {}
    for line in table.splitlines()[2:]:
        family, types, engine = (cell.strip() for cell in line.strip("|").split("|")[:3])
        found[family.strip("`")] = (re.findall(r"`([^`]+)`", types), engine)
    return found


def runs(model_type: str) -> bool:
    """True where the engine has a record of the golden model of that type."""
    golden = ROOT / "tests" / "golden" / "families" / f"{model_type}.json"
    config = json.loads(golden.read_text())
    try:
        family_of(config).architecture(config)
    except IncompatibleError:
        return False
    return True


def test_the_page_lists_every_family_with_its_model_types() -> None:
    assert list(rows()) == list(FAMILIES)
    listed = {kind: family for family, (types, _) in rows().items() for kind in types}
    assert listed == MODEL_TYPES


def test_the_page_says_what_the_engine_runs() -> None:
    for types, engine in rows().values():
        running = [kind for kind in types if runs(kind)]
        not_running = [kind for kind in types if kind not in running]
        if not running:
            assert engine == "no"
        elif not_running:
            assert engine == f"yes (not {', '.join(f'`{kind}`' for kind in not_running)})"
        else:
            assert engine == "yes"
