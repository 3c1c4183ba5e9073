"""The import rule: serving and training share adapters_store and never meet."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("adapters_store", "training", "serving", "patchbay")
FORBIDDEN = {
    "adapters_store": {"training", "serving", "patchbay", "benchmarks", "ray"},
    "training": {"serving", "patchbay", "benchmarks"},
    "serving": {"training", "patchbay", "benchmarks"},
    "patchbay": {"benchmarks"},
}
TORCH_FREE = (
    "adapters_store.names",
    "adapters_store.manifest",
    "adapters_store.store",
    "adapters_store.cli",
    "adapters_store.families",
    "adapters_store.formats.peft.export",
    "patchbay.cli",
)
ENGINE = ("serving.engine.engine", "serving.primitives", "serving.residency")


def imported_roots(path: Path) -> set[str]:
    """Top-level packages a file imports, wherever in the file the import stands."""
    roots: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            roots.add(node.module.split(".")[0])
    return roots


@pytest.mark.parametrize("package", PACKAGES)
def test_package_imports_only_what_it_may(package: str) -> None:
    faults = [
        f"{path.relative_to(ROOT)} imports {sorted(found)}"
        for path in sorted((ROOT / package).rglob("*.py"))
        if (found := imported_roots(path) & FORBIDDEN[package])
    ]
    assert faults == []


def loaded_after(module: str, *, unwanted: tuple[str, ...]) -> list[str]:
    """The unwanted modules that are loaded once ``module`` is imported in a fresh process."""
    program = f"import sys, {module}; print([m for m in {unwanted!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    found: list[str] = ast.literal_eval(result.stdout.strip())
    return found


@pytest.mark.parametrize("module", TORCH_FREE)
def test_light_modules_do_not_load_torch(module: str) -> None:
    assert loaded_after(module, unwanted=("torch", "transformers", "ray")) == []


@pytest.mark.parametrize("module", ENGINE)
def test_engine_is_importable_without_ray_or_a_web_server(module: str) -> None:
    assert loaded_after(module, unwanted=("ray", "fastapi", "zmq")) == []
