"""What is set on names and versions: ``alias``, ``unalias`` and ``tag``."""

from __future__ import annotations

import click

from adapters_store.cli.options import json_option, open_store, reason_option, store_option
from adapters_store.errors import UsageError
from adapters_store.printing import print_json, print_table


@click.command("alias")
@click.argument("name")
@click.argument("alias")
@click.argument("version", type=int)
@click.option("--expected", type=int, help="Version it must point at now; 0 for none.")
@click.option("--evidence", type=int, multiple=True, help="Id of an evaluation that speaks for it.")
@reason_option
@store_option
def alias(
    location: str,
    name: str,
    alias: str,
    version: int,
    expected: int | None,
    evidence: tuple[int, ...],
    reason: str,
) -> None:
    """Point an alias of tenant/name at a version.

    Example: patchbay adapters alias acme/redact-email prod 3 --expected 2
    """
    with open_store(location) as store:
        before = store.aliases(name).get(alias)
        found = store.set_alias(
            name, alias, version, expected_version=expected, reason=reason, evidence=evidence
        )
    click.echo(f"{found.full_name}@{alias}")
    if before == found.number:
        told = f"was version {found.number} already; nothing was recorded"
    else:
        told = f"is now version {found.number}"
    click.echo(f"{found.full_name}@{alias} {told}", err=True)


@click.command("unalias")
@click.argument("name")
@click.argument("alias")
@click.option("--expected", type=int, help="Version it must point at now.")
@reason_option
@store_option
def unalias(location: str, name: str, alias: str, expected: int | None, reason: str) -> None:
    """Remove an alias of tenant/name.

    Example: patchbay adapters unalias acme/redact-email canary --reason "no longer tried"
    """
    with open_store(location) as store:
        store.remove_alias(name, alias, expected_version=expected, reason=reason)
    click.echo(f"{name}@{alias} is gone.", err=True)


@click.command("tag")
@click.argument("reference")
@click.argument("settings", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--remove", "removed", multiple=True, metavar="KEY", help="Remove this tag.")
@json_option
@store_option
def tag(
    location: str,
    reference: str,
    settings: tuple[str, ...],
    removed: tuple[str, ...],
    as_json: bool,
) -> None:
    """Set and remove tags of a tenant/name or of one version, and print those that are left.

    Example: patchbay adapters tag acme/redact-email:3 stage=canary --remove draft
    """
    from adapters_store.ledger.tags import parse_tag

    chosen = [parse_tag(text) for text in settings]
    for key, value in chosen:
        if value is None:
            raise UsageError(f"tag {key!r} has no value; expected KEY=VALUE")
    with open_store(location) as store:
        for key, value in chosen:
            store.tags.set(reference, key, value or "")
        for key in removed:
            store.tags.remove(reference, key)
        found = store.tags.list(reference)
    if as_json:
        print_json(found)
    else:
        print_table(list(found.items()))
