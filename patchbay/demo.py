"""``patchbay demo``: the whole system at work on its bundled parts, then left running."""

from __future__ import annotations

import os
import signal
import socket
import tempfile
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import click

from adapters_store.errors import UnavailableError, UsageError

if TYPE_CHECKING:
    from patchbay.tour import Tour

TENANTS = ("acme", "globex", "initech", "umbrella", "hooli", "stark")
EXIT_INTERRUPTED = 130


@click.command("demo")
@click.option("--exit", "stops", is_flag=True, help="Stop after the requests instead of serving.")
@click.option("--port", default=8000, show_default=True, help="Port on 127.0.0.1.")
@click.option(
    "--store",
    metavar="PATH",
    help="Keep the store here. Default: a fresh one, removed at the end.",
)
def demo(stops: bool, port: int, store: str | None) -> None:
    """Start the system, answer tenants' tasks, teach a new one, and keep serving.

    Example: patchbay demo --exit
    """
    began = time.monotonic()
    _require_free(port)
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with ExitStack() as stack:
        if store is None:
            store = stack.enter_context(tempfile.TemporaryDirectory(prefix="patchbay-demo-"))
        tour = _start(stack, store, port)
        tour.answer_tasks()
        tour.teach_new_task()
        tour.mix_tasks()
        tour.print_next_commands()
        click.echo(f"\n{tour.num_right} of {tour.num_shown} demonstrated answers are right.")
        click.echo(f"The tour took {time.monotonic() - began:.0f} s.")
        if tour.num_right < tour.num_shown:
            raise SystemExit(1)
        if stops:
            return
        click.echo(f"Serving on {tour.url} until Ctrl-C.")
        _wait_for_interrupt()
    raise SystemExit(EXIT_INTERRUPTED)


def _start(stack: ExitStack, location: str, port: int) -> Tour:
    from adapters_store.location import location_path
    from adapters_store.store import Store
    from patchbay import bundled
    from patchbay.tour import Tour

    if not bundled.BANK_FOLDER.is_dir():
        raise UnavailableError(
            f"the bundled bank is missing from {bundled.FOLDER}",
            hint="Install from a complete checkout, or train it: patchbay train run bytes-small.",
        )
    store = stack.enter_context(Store.open(location))
    names = bundled.register(store, TENANTS)
    size = sum(path.stat().st_size for path in bundled.ROUTING_FOLDER.rglob("*.safetensors"))
    click.echo(
        f"Registered one bank of skills and {len(names)} tasks of {len(TENANTS)} tenants: each "
        f"task is a routing vector of {size / len(names) / 1024:.0f} KiB."
    )
    click.echo("Starting Ray Serve and the engine core ...")
    from serving.cluster.local import serve_locally
    from serving.config import ServeConfig

    began = time.monotonic()
    config = ServeConfig(port=port, store=location_path(location)).with_defaults()
    url = stack.enter_context(serve_locally(config))
    click.echo(f"Ready after {time.monotonic() - began:.0f} s on {url} (docs: {url}/docs).")
    return stack.enter_context(Tour(url, store, names))


def _require_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise UsageError(
                f"port {port} on 127.0.0.1 cannot be used: {error.strerror}",
                hint="Stop what listens there, or choose another with --port.",
            ) from error


def _wait_for_interrupt() -> None:
    stopping = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopping.set())
    while not stopping.wait(timeout=3600):
        continue
    click.echo("Stopping ...", err=True)
