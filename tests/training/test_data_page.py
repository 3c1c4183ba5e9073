"""The page on data: every file and every source in it is made and trained as it is written."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from training.cli import train
from training.recipe import TasksSection
from training.sources import SOURCES

PAGE = Path(__file__).resolve().parents[2] / "docs" / "training" / "data.md"
BLOCKS = re.findall(r"^```(\w+)(?: (\S+))?\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
SECTIONS = [text for _, name, text in BLOCKS if name == "tasks"]


@pytest.fixture
def page_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the page's files, its python run."""
    datasets = pytest.importorskip("datasets", reason="the package datasets is not installed")
    datasets.disable_progress_bars()
    monkeypatch.chdir(tmp_path)
    for language, name, text in BLOCKS:
        if name and name != "tasks":
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            Path(name).write_text(text)
        if language == "python":
            subprocess.run([sys.executable, "-c", text], check=True, capture_output=True)
    return tmp_path


def test_the_page_shows_every_source() -> None:
    shown = [yaml.safe_load(text)["source"] for text in SECTIONS]
    assert {*shown, "suite"} == set(SOURCES)
    for language, name, text in BLOCKS:
        if language == "yaml" and not name:
            TasksSection.model_validate(yaml.safe_load(text))


@pytest.mark.parametrize("text", ["", *SECTIONS])
def test_the_recipes_of_the_page_run(text: str, page_files: Path) -> None:
    recipe = yaml.safe_load(Path("train.yaml").read_text())
    if text:
        recipe["tasks"] = yaml.safe_load(text)
    Path("mine.yaml").write_text(yaml.safe_dump(recipe))
    done = CliRunner().invoke(train, ["run", "mine.yaml", "--set", "train.steps=1"])
    assert done.exit_code == 0, done.exception
    assert (page_files / "runs" / "mine" / "outcome.json").is_file()
