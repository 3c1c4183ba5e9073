"""Telling other systems of changes: ``webhooks``."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapters_store.cli.options import (
    is_confirmed,
    json_option,
    open_store,
    store_option,
    yes_option,
)
from adapters_store.errors import UsageError
from adapters_store.printing import print_json, print_table

if TYPE_CHECKING:
    from adapters_store.webhooks.deliverer import Deliverer


@click.group("webhooks")
def webhooks() -> None:
    """Tell URLs of changes, signed with a secret of their own."""


@webhooks.command("add")
@click.argument("url")
@click.option("--event", "events", multiple=True, help="Type or pattern. Default: '*'.")
@click.option("--tenant", help="Only changes of this tenant's.")
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="File with the secret. Default: one is made.",
)
@click.option("--allow-private", is_flag=True, help="Allow a private or loopback address.")
@json_option
@store_option
def add(
    location: str,
    url: str,
    events: tuple[str, ...],
    tenant: str | None,
    secret_file: Path | None,
    allow_private: bool,
    as_json: bool,
) -> None:
    """Tell URL of every event from now on; prints the secret, once.

    Example: patchbay adapters webhooks add https://ci.example.org/hook --event 'alias.*'
    """
    secret = None if secret_file is None else secret_file.read_text(encoding="utf-8").strip()
    with open_store(location) as store:
        made = store.webhooks.add(
            url, secret, events=events or ("*",), tenant=tenant, allow_private=allow_private
        )
    if as_json:
        print_json(made.as_json() | {"secret": made.secret})
        return
    click.echo(made.secret)
    click.echo(f"Webhook {made.id}; the secret is not shown again.", err=True)


@webhooks.command("ls")
@click.option("--tenant", help="Only this tenant's.")
@json_option
@store_option
def list_webhooks(location: str, tenant: str | None, as_json: bool) -> None:
    """List webhooks with how far they are.

    Example: patchbay adapters webhooks ls
    """
    with open_store(location) as store:
        found = store.webhooks.list(tenant)
    if as_json:
        print_json([one.as_json() for one in found])
        return
    rows = [("ID", "URL", "EVENTS", "TENANT", "CURSOR", "DEAD", "LAST ERROR")]
    for one in found:
        rows.append(
            (
                str(one.id),
                one.url,
                ",".join(one.events),
                one.tenant or "-",
                str(one.cursor),
                str(one.num_dead),
                one.last_error or "-",
            )
        )
    print_table(rows)


@webhooks.command("rm")
@click.argument("webhook", type=int)
@yes_option
@store_option
def remove(location: str, webhook: int, yes: bool) -> None:
    """End a webhook, and forget its secret and its dead letters.

    Example: patchbay adapters webhooks rm 3 --yes
    """
    with open_store(location) as store:
        if is_confirmed(f"remove webhook {webhook}", yes):
            store.webhooks.remove(webhook)
            click.echo(f"Webhook {webhook} is removed.", err=True)


@webhooks.command("deliver")
@click.option("--follow", is_flag=True, help="Go on as events come, until SIGINT or SIGTERM.")
@json_option
@store_option
def deliver(location: str, follow: bool, as_json: bool) -> None:
    """Deliver what is due, once or as events come; several may run side by side.

    Example: patchbay adapters webhooks deliver --follow
    """
    from adapters_store.webhooks.deliverer import Deliverer

    if follow and as_json:
        raise UsageError("--follow counts nothing, so --json has nothing to print")
    with open_store(location) as store:
        if follow:
            _follow(Deliverer(store))
            return
        counts = Deliverer(store).deliver_due()
    if as_json:
        print_json(counts.as_json())
    else:
        print_table([(key, str(value)) for key, value in counts.as_json().items()])


def _follow(deliverer: Deliverer) -> None:
    stopping = threading.Event()
    for end in (signal.SIGINT, signal.SIGTERM):
        signal.signal(end, lambda *_: stopping.set())
    click.echo("Delivering as events come; Ctrl-C ends it.", err=True)
    deliverer.run(stopping)


@webhooks.command("dead")
@click.argument("webhook", type=int, required=False)
@json_option
@store_option
def list_dead(location: str, webhook: int | None, as_json: bool) -> None:
    """List deliveries that were given up.

    Example: patchbay adapters webhooks dead 3
    """
    with open_store(location) as store:
        found = store.webhooks.dead_letters(webhook)
    if as_json:
        print_json([one.as_json() for one in found])
        return
    rows = [("WEBHOOK", "EVENT", "TYPE", "ATTEMPTS", "LAST ERROR")]
    for one in found:
        rows.append(
            (str(one.webhook_id), str(one.sequence), one.type, str(one.attempts), one.last_error)
        )
    print_table(rows)


@webhooks.command("redeliver")
@click.argument("webhook", type=int)
@click.option("--event", "sequence", type=int, help="Only this event's number.")
@store_option
def redeliver(location: str, webhook: int, sequence: int | None) -> None:
    """Make given-up deliveries due again; `deliver` then tries them.

    Example: patchbay adapters webhooks redeliver 3 --event 17
    """
    with open_store(location) as store:
        number = store.webhooks.redeliver(webhook, sequence)
    click.echo(str(number))
    click.echo(f"{number} deliveries are due again.", err=True)
