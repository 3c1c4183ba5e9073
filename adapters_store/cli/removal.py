"""Taking away and bringing back: ``rm``, ``restore`` and ``gc``."""

from __future__ import annotations

import click

from adapters_store.cli.options import (
    dry_run_option,
    is_confirmed,
    json_option,
    open_store,
    reason_option,
    store_option,
    yes_option,
)
from adapters_store.printing import print_json, print_table


@click.command("rm")
@click.argument("reference")
@yes_option
@dry_run_option
@reason_option
@store_option
def remove(location: str, reference: str, yes: bool, dry_run: bool, reason: str) -> None:
    """Delete a version, or a whole tenant/name. `restore` undoes it.

    Example: patchbay adapters rm acme/redact-email:2 --yes --reason "bad labels"
    """
    with open_store(location) as store:
        if not (dry_run or is_confirmed(f"delete {reference}", yes)):
            return
        for version in store.delete(reference, reason=reason, dry_run=dry_run):
            click.echo(version.reference)
    if dry_run:
        click.echo("Nothing was deleted.", err=True)


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


@click.command("gc")
@click.option(
    "--restore-window-days",
    "days",
    type=click.FloatRange(min=0),
    help="Deletions younger than this stay. Default: the store's.",
)
@yes_option
@dry_run_option
@json_option
@store_option
def collect(location: str, days: float | None, yes: bool, dry_run: bool, as_json: bool) -> None:
    """Give up what was deleted before the restore window, and remove what nothing needs.

    Aliases, pins, running servers and routings keep what they need, and blobs that were stored in
    the last 24 hours stay until a later collection. It cannot be undone.

    Example: patchbay adapters gc --dry-run
    """
    with open_store(location) as store:
        if not (dry_run or is_confirmed("give up what was deleted, for good", yes)):
            return
        window_s = None if days is None else days * 86400
        found = store.collect(dry_run=dry_run, restore_window_s=window_s)
    if as_json:
        print_json(found.as_json())
        return
    rows = [("purged", one.reference, f"deleted {one.deleted_at[:19]}") for one in found.purged]
    rows += [("kept", one.reference, "; ".join(one.why)) for one in found.kept]
    rows += [("blob", one.digest, f"{one.size_bytes} bytes, {one.why}") for one in found.blobs]
    print_table(rows)
    counts = f"{len(found.purged)} versions, {len(found.blobs)} blobs, {found.num_uploads} uploads"
    verb = "Would remove" if dry_run else "Removed"
    click.echo(f"{verb} {counts}: {found.bytes_freed} bytes.", err=True)
