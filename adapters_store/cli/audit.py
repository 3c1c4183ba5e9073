"""The log of every change: ``audit``."""

from __future__ import annotations

import re

import click

from adapters_store.cli.options import json_option, open_store, store_option
from adapters_store.errors import CorruptStoreError, UsageError
from adapters_store.printing import print_json, print_table

_HEAD = re.compile(r"([0-9]{1,18}):([0-9a-f]{64})")


@click.group("audit")
def audit() -> None:
    """Read the log of every change, and check that nobody changed it."""


@audit.command("ls")
@click.option("--tenant", help="Only changes of this tenant's.")
@click.option("--type", "kind", metavar="TYPE", help="A type, or a pattern such as 'alias.*'.")
@click.option("--after", default=0, show_default=True, help="Continue after this number.")
@click.option("--limit", default=100, show_default=True, help="Events per page.")
@json_option
@store_option
def list_events(
    location: str, tenant: str | None, kind: str | None, after: int, limit: int, as_json: bool
) -> None:
    """List changes, oldest first.

    Example: patchbay adapters audit ls --tenant acme --type 'alias.*'
    """
    with open_store(location) as store:
        found = store.audit.events(after=after, limit=limit, tenant=tenant, type=kind)
    if as_json:
        print_json([event.as_json() for event in found])
    else:
        rows = [("NUMBER", "AT", "ACTOR", "TYPE", "ABOUT", "ALIAS")]
        for event in found:
            about = event.subject.reference or event.subject.digest or event.subject.tenant or "-"
            rows.append(
                (
                    str(event.sequence),
                    event.at[:19],
                    event.actor,
                    event.type,
                    about,
                    event.subject.alias or "-",
                )
            )
        print_table(rows)
    if len(found) == limit:
        click.echo(f"There may be more: --after {found[-1].sequence}", err=True)


@audit.command("verify")
@click.option("--expect", metavar="NUMBER:HASH", help="An end of the log that was noted earlier.")
@json_option
@store_option
def verify_log(location: str, expect: str | None, as_json: bool) -> None:
    """Walk the chain of hashes, print its end, and exit with 5 where it does not hold.

    Note the end elsewhere: with --expect it proves that nothing before it was rewritten.

    Example: patchbay adapters audit verify --json
    """
    expected = None
    if expect is not None:
        parts = _HEAD.fullmatch(expect)
        if parts is None:
            raise UsageError(f"--expect {expect[:100]!r}; expected NUMBER:HASH as verify prints it")
        expected = int(parts[1]), parts[2]
    with open_store(location) as store:
        report = store.audit.verify(expected_head=expected)
    if as_json:
        print_json(report.as_json())
    else:
        click.echo(f"{report.head.sequence}:{report.head.hash}")
    if report.first_break is not None:
        raise CorruptStoreError(
            f"the audit log does not hold: {report.first_break.message}",
            hint="Compare it with a copy; what follows the break cannot be trusted.",
        )
    click.echo(f"{report.num_events} events hold.", err=True)
