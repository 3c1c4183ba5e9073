"""Content that somebody keeps: ``pin``, ``unpin`` and ``pins``."""

from __future__ import annotations

import click

from adapters_store.cli.options import json_option, open_store, reason_option, store_option
from adapters_store.printing import print_json, print_table

_owner = click.option("--owner", required=True, help="Who keeps it, such as a release.")


@click.command("pin")
@click.argument("reference")
@_owner
@reason_option
@json_option
@store_option
def pin(location: str, reference: str, owner: str, reason: str, as_json: bool) -> None:
    """Keep a version's content until its owner unpins it, whatever is deleted.

    Example: patchbay adapters pin acme/redact-email:3 --owner "release 7"
    """
    with open_store(location) as store:
        made = store.pin(reference, owner, reason)
    if as_json:
        print_json(made.as_json())
    else:
        click.echo(made.digest)


@click.command("unpin")
@click.argument("reference")
@_owner
@store_option
def unpin(location: str, reference: str, owner: str) -> None:
    """Remove an owner's pin, by reference or by artefact digest.

    Example: patchbay adapters unpin acme/redact-email:3 --owner "release 7"
    """
    with open_store(location) as store:
        store.unpin(reference, owner)
    click.echo(f"{owner!r} no longer keeps {reference}", err=True)


@click.command("pins")
@click.option("--owner", help="Only this owner's.")
@json_option
@store_option
def pins(location: str, owner: str | None, as_json: bool) -> None:
    """List what is kept, by whom and why.

    Example: patchbay adapters pins --owner "release 7"
    """
    with open_store(location) as store:
        found = store.pins.list(owner=owner)
    if as_json:
        print_json([one.as_json() for one in found])
        return
    rows = [("DIGEST", "OWNER", "ACTOR", "AT", "REASON")]
    rows += [(one.digest, one.owner, one.actor, one.at[:19], one.reason) for one in found]
    print_table(rows)
