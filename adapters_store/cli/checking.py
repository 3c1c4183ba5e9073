"""Holding the store to what it says: ``verify``."""

from __future__ import annotations

import click

from adapters_store.cli.options import json_option, open_store, store_option
from adapters_store.errors import CorruptStoreError, UsageError
from adapters_store.printing import print_json, print_table


@click.command("verify")
@click.argument("reference", required=False)
@click.option("--all", "is_all", is_flag=True, help="The whole store; so does no reference.")
@json_option
@store_option
def verify(location: str, reference: str | None, is_all: bool, as_json: bool) -> None:
    """Read and hash every stored byte of a reference, or of the whole store.

    Signatures are checked too. Prints one finding per damage and exits with 5 if there is any.

    Example: patchbay adapters verify --all
    """
    if is_all and reference is not None:
        raise UsageError("--all and a reference exclude each other")
    with open_store(location) as store:
        findings = store.verify(reference)
    if as_json:
        print_json([finding.as_json() for finding in findings])
    else:
        print_table([(item.reference, item.blob, item.problem, item.message) for item in findings])
    if findings:
        raise CorruptStoreError(
            f"the store does not hold what was published: {len(findings)} finding(s)",
            hint="Publish the damaged versions again; that replaces what is missing or altered.",
        )
    click.echo("Everything is sound.", err=True)
