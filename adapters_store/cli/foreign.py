"""Adapters of other tools come in: ``inspect`` and ``import``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import click

from adapters_store.cli import backbone_choice
from adapters_store.cli.options import (
    alias_options,
    dry_run_option,
    existing_store,
    json_option,
    open_store,
    store_option,
)
from adapters_store.errors import EXIT_INVALID
from adapters_store.printing import print_json, print_table

if TYPE_CHECKING:
    from adapters_store.artefact import Artefact
    from adapters_store.backbone import Backbone
    from adapters_store.formats import ImportOptions, Source

_backbone_option = click.option(
    "--backbone", metavar="NAME|PATH", help="Registered name, or ./folder. Default: the only one."
)
_TASKS = ("text2text", "classification", "embedding")


def import_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command what a source does not say of itself, passed on as ``options``."""

    @click.option("--task", type=click.Choice(_TASKS), help="Default: by backbone and head.")
    @click.option("--labels", default="", metavar="A,B,...", help="Names of the head's rows.")
    @click.option("--description", default="", help="What the task does.")
    @click.option("--prompt-template", default="{input}", show_default=True)
    @click.option("--max-input-tokens", type=click.IntRange(min=1), default=512, show_default=True)
    @click.option("--max-output-tokens", type=click.IntRange(min=1), default=128, show_default=True)
    @click.option("--poly-task", type=click.IntRange(min=0), help="One task of a Poly checkpoint.")
    @functools.wraps(command)
    def with_options(
        *args: Any,
        task: Any,
        labels: str,
        description: str,
        prompt_template: str,
        max_input_tokens: int,
        max_output_tokens: int,
        poly_task: int | None,
        **others: Any,
    ) -> None:
        from adapters_store.formats import ImportOptions

        options = ImportOptions(
            task=task,
            labels=tuple(label.strip() for label in labels.split(",") if label.strip()),
            description=description,
            prompt_template=prompt_template,
            max_input_tokens=max_input_tokens,
            max_output_tokens=max_output_tokens,
            poly_task=poly_task,
        )
        command(*args, options=options, **others)

    return with_options


@click.command("inspect")
@click.argument("source")
@_backbone_option
@import_options
@json_option
@store_option
def inspect(
    location: str, source: str, backbone: str | None, options: ImportOptions, as_json: bool
) -> None:
    """Say whether SOURCE can be imported, from its configuration and header alone.

    Exits with 0 for accept and convert, with 5 for reject.

    Example: patchbay adapters inspect hf://acme/redact-lora --backbone t5-small
    """
    from adapters_store.formats import inspect as inspect_source
    from adapters_store.formats.rendering import inspection_json, inspection_rows
    from adapters_store.formats.sources import open_source
    from adapters_store.formats.target import choose_backbone

    opened = open_source(source)
    folder = backbone_choice.read_folder(backbone)
    if folder is not None:
        record = folder.record
    else:
        with open_store(location) as store:
            record = choose_backbone(store.backbones(), backbone, opened)
    inspection = inspect_source(opened, record, options)
    if as_json:
        click.echo(inspection_json(inspection), nl=False)
    else:
        print_table(inspection_rows(inspection))
    if inspection.verdict == "reject":
        click.get_current_context().exit(EXIT_INVALID)


@click.command("import")
@click.argument("source")
@click.argument("name")
@_backbone_option
@import_options
@alias_options
@dry_run_option
@json_option
@store_option
def import_source(
    location: str,
    source: str,
    name: str,
    backbone: str | None,
    options: ImportOptions,
    aliases: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
) -> None:
    """Import SOURCE as the next version of tenant/name: converted exactly, or refused.

    A checkpoint of several artefacts takes names that begin with NAME.

    Example: patchbay adapters import ./redact-lora acme/redact-email --backbone t5-small
    """
    from adapters_store.formats.importing import import_from
    from adapters_store.formats.sources import open_source
    from adapters_store.formats.target import choose_backbone
    from adapters_store.names import parse_name

    parse_name(name)
    opened = open_source(source)
    folder = backbone_choice.read_folder(backbone)
    if dry_run:
        _rehearse(location, opened, name, backbone, folder, options, as_json)
        return
    with open_store(location, create=folder is not None) as store:
        if folder is not None:
            backbone_choice.register(store, folder)
            record = folder.record
        else:
            record = choose_backbone(store.backbones(), backbone, opened)
        items = [(name + suffix, one) for suffix, one in import_from(opened, record, options)]
        versions = store.publish_many(items, aliases=aliases)
    if as_json:
        print_json([version.as_json() for version in versions])
    for version in () if as_json else versions:
        click.echo(version.reference)


def _rehearse(
    location: str,
    source: Source,
    name: str,
    backbone: str | None,
    folder: Backbone | None,
    options: ImportOptions,
    as_json: bool,
) -> None:
    """Import and check everything, and store nothing; a store need not exist for a folder."""
    from adapters_store.formats.importing import import_from
    from adapters_store.formats.target import choose_backbone

    store = existing_store(location) if folder is not None else open_store(location)
    with store or nullcontext():
        known = [] if store is None else store.backbones()
        record = folder.record if folder is not None else choose_backbone(known, backbone, source)
        items = [(name + suffix, one) for suffix, one in import_from(source, record, options)]
        if store is not None:
            store.check_many(items, backbones=[record])
    rows = [_planned(*item) for item in items]
    if as_json:
        print_json(rows)
    else:
        print_table([(name, one.manifest.kind, one.digest) for name, one in items])
    click.echo("Nothing was stored.", err=True)


def _planned(full_name: str, artefact: Artefact) -> dict[str, Any]:
    """A version that would be, with the keys of a version's JSON that are known before."""
    tenant, _, name = full_name.partition("/")
    manifest = artefact.manifest
    return {
        "tenant": tenant,
        "name": name,
        "version": None,
        "reference": None,
        "digest": artefact.digest,
        "kind": manifest.kind,
        "backbone": manifest.backbone,
        "bank": manifest.bank,
        "data_bytes": manifest.data.size_bytes,
    }
