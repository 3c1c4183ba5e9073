"""Files for other tools: ``export`` and ``convert``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from adapters_store.cli.options import json_option, open_store, store_option
from adapters_store.errors import RejectedArtefactError
from adapters_store.formats import EXPORTERS
from adapters_store.lazy import resolve
from adapters_store.printing import print_json


@click.command("export")
@click.argument("reference")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--format", "form", type=click.Choice(list(EXPORTERS)), default="peft", show_default=True
)
@store_option
def export(location: str, reference: str, folder: Path, form: str) -> None:
    """Write a version as a folder that PEFT, the adapters library or another store reads.

    What a format cannot express exactly is refused.

    Example: patchbay adapters export acme/redact-email out/ --format peft
    """
    with open_store(location) as store:
        version = store.resolve(reference)
        artefact = store.artefact(version.digest)
        bank = None if version.bank is None else store.artefact(version.bank)
        records = {record.fingerprint: record for record in store.backbones()}
    exporter: Callable[..., Path] = resolve(EXPORTERS, form, "export format")
    try:
        click.echo(str(exporter(artefact, records[version.backbone], folder, bank)))
    except RejectedArtefactError as error:
        raise RejectedArtefactError(
            f"{version.reference} cannot be written as {form}: {error.message}",
            hint="`--format patchbay` writes every artefact.",
        ) from error
    click.echo(f"Exported {version.reference}", err=True)


@click.command("convert")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False))
@click.argument("out", type=click.Path(path_type=Path))
@json_option
def convert(folder: Path, out: Path, as_json: bool) -> None:
    """Convert FOLDER's pickled weights to safetensors in a new folder OUT.

    The pickles are read by a child process with bounded memory and time that takes plain tensors
    alone.

    Example: patchbay adapters convert old-adapter/ new-adapter/
    """
    from adapters_store.formats.pickles import convert_pickle

    made = convert_pickle(folder, out)
    document: dict[str, Any] = {
        "folder": str(made.folder),
        "written": list(made.written),
        "left_out": list(made.left_out),
    }
    if as_json:
        print_json(document)
    else:
        click.echo(str(made.folder))
    for name in made.left_out:
        click.echo(f"Left out: {name}", err=True)
