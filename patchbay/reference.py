"""The reference of the command line, made from its own help: ``python -m patchbay.reference``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import click

from patchbay.cli import patchbay

FILE = Path("docs/cli.md")
WIDTH = 100
_TITLE = """# Command line

Made from the commands' own help by `python -m patchbay.reference`; a test holds this page to it.
Data goes to stdout and talk to stderr; `--json` on a listing gives a stable schema. Exit codes:
0 ok, 2 usage, 3 not found, 4 conflict, 5 invalid artefact, 6 incompatible, 7 forbidden,
8 unavailable, 130 interrupted.
"""


def render() -> str:
    """The whole page in Markdown."""
    root = click.Context(patchbay, info_name="patchbay", **patchbay.context_settings)
    root.terminal_width = WIDTH
    root.max_content_width = WIDTH
    sections = [_TITLE]
    for context in contexts(root):
        help_text = context.command.get_help(context)
        sections.append(f"## {context.command_path}\n\n```\n{help_text}\n```\n")
    return "\n".join(sections)


def contexts(of: click.Context) -> Iterator[click.Context]:
    """A command's context and those of everything below it."""
    yield of
    if not isinstance(of.command, click.Group):
        return
    for name in of.command.list_commands(of):
        command = of.command.get_command(of, name)
        if command is not None:
            below = click.Context(command, info_name=name, parent=of)
            below.terminal_width, below.max_content_width = WIDTH, WIDTH
            yield from contexts(below)


def main() -> None:
    """Write the page into the checkout that is the current folder."""
    FILE.write_text(render(), encoding="utf-8")
    print(f"Wrote {FILE}", file=sys.stderr)


if __name__ == "__main__":
    main()
