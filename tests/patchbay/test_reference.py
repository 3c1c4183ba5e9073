"""The page on the command line says what the commands say."""

from __future__ import annotations

from pathlib import Path

from patchbay.cli import COMMANDS
from patchbay.reference import FILE, render

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_what_the_commands_say() -> None:
    page = (ROOT / FILE).read_text(encoding="utf-8")
    assert page == render(), "run `python -m patchbay.reference`"


def test_every_command_stands_in_it_once() -> None:
    names = [line[3:] for line in render().splitlines() if line.startswith("## ")]
    assert len(names) == len(set(names))
    assert set(names) > {"patchbay", "patchbay serve", "patchbay adapters audit verify"}
    assert {name.split()[1] for name in names if " " in name} == set(COMMANDS)
