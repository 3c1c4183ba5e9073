"""A command group over a lazy table: a subcommand's module is imported when it is used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from adapters_store.errors import UnavailableError
from adapters_store.lazy import resolve

OWN_PACKAGES = frozenset({"adapters_store", "patchbay", "serving", "training"})


class LazyGroup(click.Group):
    """``table`` maps names to ``module:command``; ``summaries`` gives each its line of help."""

    def __init__(
        self, *args: Any, table: Mapping[str, str], summaries: Mapping[str, str], **options: Any
    ) -> None:
        super().__init__(*args, **options)
        self._table, self._summaries = table, summaries

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names in the order of the table."""
        return list(self._table)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command, or None for an unknown name.

        Raises UnavailableError where an optional dependency of the command is not installed.
        """
        if cmd_name not in self._table:
            return None
        try:
            command: click.Command = resolve(self._table, cmd_name, "command")
        except ModuleNotFoundError as error:
            package = (error.name or "").partition(".")[0]
            if package in OWN_PACKAGES:
                raise
            raise UnavailableError(
                f"`{ctx.command_path} {cmd_name}` needs the Python package {package!r}",
                hint="Install Patchbay with its extras: pip install 'patchbay[serve,train]'.",
            ) from error
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands from the table of summaries, importing nothing."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._summaries.items()))
