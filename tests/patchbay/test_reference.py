"""The page on the command line says what the commands say."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click

from patchbay.cli import COMMANDS, patchbay
from patchbay.reference import FILE, contexts, render

ROOT = Path(__file__).resolve().parents[2]


def test_the_page_is_what_the_commands_say() -> None:
    # In a process of its own: click keeps a command's help option from the context it met first.
    code = "import sys; from patchbay.reference import render; sys.stdout.write(render())"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, timeout=60)
    page = (ROOT / FILE).read_text(encoding="utf-8")
    assert page == said.stdout.decode(), "run `python -m patchbay.reference`"


def test_every_command_stands_in_it_once() -> None:
    names = [line[3:] for line in render().splitlines() if line.startswith("## ")]
    assert len(names) == len(set(names))
    assert set(names) > {"patchbay", "patchbay serve", "patchbay adapters audit verify"}
    assert {name.split()[1] for name in names if " " in name} == set(COMMANDS)


def test_every_command_gives_an_example() -> None:
    root = click.Context(patchbay, info_name="patchbay", **patchbay.context_settings)
    assert [
        context.command_path
        for context in contexts(root)
        if not isinstance(context.command, click.Group)
        and "Example: patchbay " not in (context.command.help or "")
    ] == []
