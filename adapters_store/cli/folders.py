"""Artefact folders in and out: ``push`` and ``pull``."""

from __future__ import annotations

from pathlib import Path

import click

from adapters_store.cli.backbone_choice import register
from adapters_store.cli.options import alias_options, json_option, open_store, store_option
from adapters_store.errors import ConflictError
from adapters_store.printing import print_json


@click.command("push")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("name")
@alias_options
@click.option(
    "--backbone",
    "backbone_folder",
    type=click.Path(path_type=Path),
    help="Register the backbone in this folder first.",
)
@json_option
@store_option
def push(
    location: str,
    folder: Path,
    name: str,
    aliases: tuple[str, ...],
    backbone_folder: Path | None,
    as_json: bool,
) -> None:
    """Publish an artefact folder as the next version of tenant/name.

    Example: patchbay adapters push runs/redact acme/redact-email
    """
    from adapters_store.artefact import read_artefact
    from adapters_store.backbone import Backbone

    artefact = read_artefact(folder)
    with open_store(location, create=True) as store:
        if backbone_folder is not None:
            register(store, Backbone.from_folder(backbone_folder))
        version = store.publish(name, artefact, aliases=aliases)
    if as_json:
        print_json(version.as_json())
    else:
        click.echo(version.reference)


@click.command("pull")
@click.argument("reference")
@click.argument("folder", type=click.Path(path_type=Path))
@store_option
def pull(location: str, reference: str, folder: Path) -> None:
    """Write a version's manifest and data to a folder.

    Example: patchbay adapters pull acme/redact-email:3 out/
    """
    from adapters_store.artefact import write_artefact
    from adapters_store.manifest import MANIFEST_FILE

    with open_store(location) as store:
        version = store.resolve(reference)
        artefact = store.artefact(version.digest)
    target = folder / MANIFEST_FILE
    if target.exists() and target.read_bytes() != artefact.manifest.canonical:
        raise ConflictError(
            f"{target} holds another artefact", hint="Choose an empty folder, or remove the file."
        )
    click.echo(str(write_artefact(artefact, folder)))
    click.echo(f"Pulled {version.reference}", err=True)
