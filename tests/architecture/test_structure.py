"""Shape of the source: short files, lazy tables that resolve, errors that are complete."""

import importlib
from collections import Counter
from pathlib import Path

import pytest

from adapters_store import errors
from adapters_store.errors import PatchbayError, UsageError
from adapters_store.lazy import resolve

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("adapters_store", "training", "serving", "patchbay")
MAX_LINES = 300
TABLES = (
    ("adapters_store.families", "FAMILIES"),
    ("adapters_store.primitives", "PRIMITIVES"),
    ("adapters_store.blobs", "BLOBS"),
    ("adapters_store.catalog", "CATALOGS"),
    ("adapters_store.formats.sources", "SOURCES"),
    ("adapters_store.catalog.migrations", "MIGRATIONS"),
    ("adapters_store.formats", "FORMATS"),
    ("adapters_store.formats", "EXPORTERS"),
    ("adapters_store.formats.peft", "PEFT_METHODS"),
    ("adapters_store.formats.peft.export", "PEFT_EXPORTS"),
    ("training.methods", "METHODS"),
    ("training.inits", "INITS"),
    ("training.sources", "SOURCES"),
    ("training.methods.routing", "GATES"),
    ("training.objectives", "OBJECTIVES"),
    ("training.reference", "REFERENCES"),
    ("training.metrics", "METRICS"),
    ("serving.primitives", "PRIMITIVES"),
    ("serving.primitives.backend", "BACKENDS"),
    ("serving.engine.policies", "POLICIES"),
    ("patchbay.cli", "COMMANDS"),
    ("benchmarks.__main__", "BENCHMARKS"),
)


def test_no_file_outgrows_the_limit() -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
        if (lines := len(path.read_text(encoding="utf-8").splitlines())) > MAX_LINES
    }
    assert long == {}


def test_every_test_file_has_a_name_of_its_own() -> None:
    """pytest imports test files by base name: the second of a name cannot be collected.

    So do tests the kits beside them, but those of ``services``, which is a package.
    """
    files = [path for path in (ROOT / "tests").rglob("*.py") if path.parent.name != "services"]
    names = Counter(path.name for path in files)
    assert [name for name, count in names.items() if count > 1] == ["conftest.py"]


def test_no_test_imports_a_conftest() -> None:
    """They all have one name: which of them it finds depends on what else is collected."""
    files = [path for path in (ROOT / "tests").rglob("*.py") if path != Path(__file__)]
    assert [path for path in files if "from conftest import" in path.read_text("utf-8")] == []


@pytest.mark.parametrize(("module", "table"), TABLES)
def test_every_row_of_a_lazy_table_resolves(module: str, table: str) -> None:
    rows = getattr(importlib.import_module(module), table)
    assert rows
    for name in rows:
        assert resolve(rows, name, table) is not None


def test_an_unknown_name_lists_the_known_ones_and_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"known: lora, mhr.*Did you mean 'lora'\?"):
        resolve({"lora": "a:b", "mhr": "c:d"}, "lorra", "training method")


def error_classes() -> list[type[PatchbayError]]:
    """Every error class of the product."""
    return [
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, PatchbayError)
    ]


def test_every_error_has_a_code_a_status_an_exit_code_and_a_hint() -> None:
    classes = error_classes()
    assert len({cls.code for cls in classes}) == len(classes)
    for cls in classes:
        assert 400 <= cls.status <= 599
        assert cls.exit_code > 0
        assert cls.default_hint.endswith(".")


def test_an_error_carries_its_message_and_a_hint() -> None:
    error = errors.NotFoundError("no adapter acme/x", param="model")
    assert (error.message, error.param) == ("no adapter acme/x", "model")
    assert "patchbay adapters ls" in error.hint
