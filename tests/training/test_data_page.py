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


@pytest.fixture(scope="module")
def page_files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the page's files, its python run."""
    pytest.importorskip("datasets", reason="the package datasets is not installed")
    folder = tmp_path_factory.mktemp("page")
    for language, name, text in BLOCKS:
        if name and name != "tasks":
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        if language == "python":
            command = [sys.executable, "-c", text]
            subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return folder


def test_the_page_shows_every_source() -> None:
    shown = [yaml.safe_load(text)["source"] for text in SECTIONS]
    assert {*shown, "suite"} == set(SOURCES)
    for language, name, text in BLOCKS:
        if language == "yaml" and not name:
            TasksSection.model_validate(yaml.safe_load(text))


@pytest.mark.parametrize("number", range(len(SECTIONS) + 1))
def test_the_recipes_of_the_page_run(
    number: int, page_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(page_files)
    recipe = yaml.safe_load(Path("train.yaml").read_text())
    if number:
        recipe["tasks"] = yaml.safe_load(SECTIONS[number - 1])
    recipe["name"] = f"run-{number}"
    Path("mine.yaml").write_text(yaml.safe_dump(recipe))
    done = CliRunner().invoke(train, ["run", "mine.yaml", "--set", "train.steps=1"])
    assert done.exit_code == 0, done.exception
    assert (page_files / "runs" / f"run-{number}" / "outcome.json").is_file()
