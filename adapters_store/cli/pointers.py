"""Moving names' pointers: ``alias``."""

from __future__ import annotations

import click

from adapters_store.cli.options import open_store, reason_option, store_option


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
        found = store.set_alias(
            name, alias, version, expected_version=expected, reason=reason, evidence=evidence
        )
    click.echo(f"{found.full_name}@{alias}")
    click.echo(f"{found.full_name}@{alias} is now version {found.number}", err=True)
