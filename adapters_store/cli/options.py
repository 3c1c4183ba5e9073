"""Options that many verbs share, and how they open the store."""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from adapters_store.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from adapters_store.store import Store

DEFAULT_STORE = "~/.patchbay"
STORE_VARIABLE = "PATCHBAY_STORE"


def store_option(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``--store``; it falls back to the group's, the environment, the default."""

    @click.option(
        "--store", "location", metavar="PATH", help="Folder of the store, or its store.yaml."
    )
    @functools.wraps(command)
    def with_store(*args: Any, location: str | None, **options: Any) -> None:
        of_group: str | None = click.get_current_context().obj
        chosen = location or of_group or os.environ.get(STORE_VARIABLE) or DEFAULT_STORE
        command(*args, location=chosen, **options)

    return with_store


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Say what would be done, and change nothing."
)
reason_option = click.option("--reason", default="", help="Kept in the audit log.")


def alias_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``--alias`` and ``--no-alias``, passed on as ``aliases``."""

    @click.option("--alias", "given", multiple=True, help="Alias to move here. Default: prod.")
    @click.option("--no-alias", is_flag=True, help="Move no alias.")
    @functools.wraps(command)
    def with_aliases(*args: Any, given: tuple[str, ...], no_alias: bool, **options: Any) -> None:
        if given and no_alias:
            raise UsageError("--alias and --no-alias exclude each other")
        command(*args, aliases=() if no_alias else (given or ("prod",)), **options)

    return with_aliases


def open_store(location: str, *, create: bool = False) -> Store:
    """Open the store; only commands that bring something in make one."""
    from adapters_store.store import Store

    return Store.open(location, create=create)


def existing_store(location: str) -> Store | None:
    """The store, or None where there is none yet."""
    try:
        return open_store(location)
    except NotFoundError:
        return None


def is_confirmed(what: str, yes: bool) -> bool:
    """Ask before something is taken away, unless ``yes``; raises UsageError without a terminal.

    ``what`` reads like "delete acme/x".
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        raise UsageError(
            f"cannot ask whether to {what}: stdin is no terminal", hint="Give --yes to go ahead."
        )
    if click.confirm(f"{what[0].upper()}{what[1:]}?", err=True):
        return True
    click.echo("Nothing was done.", err=True)
    return False
