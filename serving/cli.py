"""``patchbay serve``: the served application from the command line."""

from __future__ import annotations

import json
import signal
import threading
from pathlib import Path
from typing import Any

import click

from adapters_store.errors import PatchbayError, UsageError

EXIT_INTERRUPTED = 130


@click.command("serve")
@click.option("--config", "file", type=click.Path(path_type=Path), help="YAML configuration.")
@click.option("--host", help="Address to listen on; loopback unless keys are configured.")
@click.option("--port", type=int, help="Port to listen on. Default: 8000.")
@click.option("--replicas", "num_replicas", type=int, help="Number of replicas. Default: 1.")
@click.option("--store", metavar="PATH", help="Folder of the store, or its store.yaml.")
@click.option(
    "--backbone",
    "folders",
    type=click.Path(path_type=Path),
    multiple=True,
    help="Backbone folder, or NAME=FOLDER. Repeatable. Default: the bundled backbone.",
)
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), help="For --backbone.")
@click.option("--device", metavar="NAME", help="For --backbone: auto, cpu, cuda or cuda:N.")
@click.option("--proxy", type=click.Choice(["python", "haproxy"]), help="Ray Serve's proxy.")
@click.option("--check", is_flag=True, help="Print the effective configuration and stop.")
def serve(
    file: Path | None,
    folders: tuple[Path, ...],
    dtype: str | None,
    device: str | None,
    check: bool,
    **flags: Any,
) -> None:
    """Serve every task of a store over HTTP until Ctrl-C.

    Example: patchbay serve --store ~/.patchbay --port 8000
    """
    try:
        chosen = {"dtype": dtype, "device": device}
        code = _serve(file, folders, {k: v for k, v in chosen.items() if v}, check, flags)
    except PatchbayError as error:
        click.echo(f"error: {error.message}\nhint: {error.hint}", err=True)
        code = error.exit_code
    click.get_current_context().exit(code)


def _serve(
    file: Path | None,
    folders: tuple[Path, ...],
    chosen: dict[str, str],
    check: bool,
    flags: dict[str, Any],
) -> int:
    from serving.config import load_config
    from serving.tenancy import hash_key, new_key

    if chosen and not folders:
        raise UsageError(f"--{' and --'.join(chosen)} given without --backbone; name one")
    if folders:
        flags["backbones"] = [{**_backbone(text), **chosen} for text in folders]
    config = load_config(file, flags=flags)
    if check:
        click.echo(json.dumps(config.model_dump(mode="json"), indent=2))
        return 0
    key = None
    if config.is_development:
        key = new_key("pb-dev")
        config = config.model_copy(update={"development_key_hash": hash_key(key)})
    stopping = threading.Event()
    received: list[int] = []

    def stop(number: int, _: object) -> None:
        received.append(number)
        stopping.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    from serving.cluster.local import serve_locally

    names = ", ".join(one.name for one in config.backbones)
    click.echo(f"loading {names} ...", err=True)
    with serve_locally(config) as url:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, stop)
        click.echo(f"serving {names} from {config.store} at {url}  (docs: {url}/docs)", err=True)
        if key is not None:
            click.echo(f"development key: {key}  (optional on loopback)", err=True)
        if config.proxy == "haproxy":
            click.echo("note: HAProxy's statistics page listens on all interfaces", err=True)
        click.echo("stop with Ctrl-C", err=True)
        while not stopping.wait(timeout=3600):
            continue
        click.echo("stopping ...", err=True)
    return EXIT_INTERRUPTED if signal.SIGINT in received else 0


def _backbone(text: Path) -> dict[str, str]:
    from adapters_store.backbone import default_name

    name, equals, folder = str(text).partition("=")
    if not equals:
        name, folder = default_name(text), str(text)
    return {"name": name, "folder": folder}
