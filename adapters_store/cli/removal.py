"""Taking away and bringing back: ``rm`` and ``restore``."""

from __future__ import annotations

import click

from adapters_store.cli.options import (
    is_confirmed,
    open_store,
    reason_option,
    store_option,
    yes_option,
)


@click.command("rm")
@click.argument("reference")
@yes_option
@reason_option
@store_option
def remove(location: str, reference: str, yes: bool, reason: str) -> None:
    """Delete a version, or a whole tenant/name. `restore` undoes it.

    Example: patchbay adapters rm acme/redact-email:2 --yes --reason "bad labels"
    """
    with open_store(location) as store:
        if is_confirmed(f"delete {reference}", yes):
            for version in store.delete(reference, reason=reason):
                click.echo(version.reference)


@click.command("restore")
@click.argument("reference")
@store_option
def restore(location: str, reference: str) -> None:
    """Undo the deletion of a version, or of a whole tenant/name.

    Example: patchbay adapters restore acme/redact-email:2
    """
    with open_store(location) as store:
        for version in store.restore(reference):
            click.echo(version.reference)
