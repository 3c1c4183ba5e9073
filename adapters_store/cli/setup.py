"""What a store is made of: ``backbones``."""

from __future__ import annotations

from pathlib import Path

import click

from adapters_store.cli.options import json_option, open_store, store_option
from adapters_store.printing import print_json, print_table


@click.group("backbones")
def backbones() -> None:
    """List and register backbones."""


@backbones.command("ls")
@json_option
@store_option
def list_backbones(location: str, as_json: bool) -> None:
    """List the registered backbones. Example: patchbay adapters backbones ls"""
    with open_store(location) as store:
        found = store.backbones()
    if as_json:
        print_json([record.as_json() for record in found])
        return
    rows = [("NAME", "FAMILY", "REGISTERED", "FINGERPRINT")]
    rows += [(one.name, one.family, one.created_at[:19], one.fingerprint) for one in found]
    print_table(rows)


@backbones.command("add")
@click.argument("folder", type=click.Path(path_type=Path))
@click.option("--name", help="Name in the store. Default: the folder's.")
@json_option
@store_option
def add_backbone(location: str, folder: Path, name: str | None, as_json: bool) -> None:
    """Register the backbone in a Hugging Face model folder.

    Example: patchbay adapters backbones add models/t5-small --name t5-small
    """
    from adapters_store.backbone import Backbone

    backbone = Backbone.from_folder(folder)
    with open_store(location, create=True) as store:
        record = store.add_backbone(backbone, name)
    if as_json:
        print_json(record.as_json())
    else:
        click.echo(f"{record.name}  {record.fingerprint}")
