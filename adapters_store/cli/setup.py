"""What a store is made of: ``init`` and ``backbones``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from adapters_store.cli.options import json_option, open_store, store_option
from adapters_store.errors import PatchbayError
from adapters_store.printing import print_json, print_table


@click.command("init")
@click.option("--catalog", metavar="PLACE", help="SQLite file or postgresql:// URL.")
@click.option("--blobs", metavar="PLACE", help="Folder or s3://bucket/prefix.")
@click.option("--s3-endpoint-url", metavar="URL", help="Another service than AWS.")
@click.option("--s3-region", metavar="REGION")
@click.option("--cache-folder", metavar="FOLDER", help="Keep copies of remote blobs here.")
@click.option("--cache-bytes", type=click.IntRange(min=1), help="Budget of the copies.")
@click.option("--restore-window-days", type=click.FloatRange(min=0))
@json_option
@store_option
def init(
    location: str,
    catalog: str | None,
    blobs: str | None,
    s3_endpoint_url: str | None,
    s3_region: str | None,
    cache_folder: str | None,
    cache_bytes: int | None,
    restore_window_days: float | None,
    as_json: bool,
) -> None:
    """Make a store: write its store.yaml and its catalog.

    Values may name environment variables, as passwords should: 'postgresql://app:${PASSWORD}@db/x'.

    Example: patchbay adapters init --store /srv/patchbay --blobs s3://adapters/prod
    """
    from adapters_store.location import CONFIG_FILE, location_path
    from adapters_store.store_config import write_store_config

    settings: dict[str, Any] = {
        "s3": {"endpoint_url": s3_endpoint_url, "region": s3_region},
        "cache": {"folder": cache_folder, "max_bytes": cache_bytes},
    }
    settings = {
        section: {key: value for key, value in values.items() if value is not None}
        for section, values in settings.items()
    } | {"restore_window_days": restore_window_days}
    given = {key: value for key, value in settings.items() if value not in ({}, None)}
    was_there = (location_path(location) / CONFIG_FILE).exists()
    file = write_store_config(location, catalog=catalog, blobs=blobs, settings=given)
    try:
        open_store(location, create=True).close()
    except PatchbayError:
        if not was_there:
            file.unlink()
        raise
    if as_json:
        print_json({"config": str(file)})
    else:
        click.echo(str(file))


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
