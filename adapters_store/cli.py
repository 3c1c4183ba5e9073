"""``patchbay adapters``: thin commands over the store. Data on stdout, talk on stderr."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapters_store.errors import ConflictError, CorruptStoreError, UsageError
from adapters_store.printing import print_json, print_table, print_versions

if TYPE_CHECKING:
    from adapters_store.store import Store

DEFAULT_STORE = "~/.patchbay"
STORE_VARIABLE = "PATCHBAY_STORE"
KINDS = ("adapter", "bank", "routing")


def store_option(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``--store``; it falls back to the group's, the environment, the default."""

    @click.option("--store", "location", metavar="PATH", help="Folder of the store.")
    @functools.wraps(command)
    def with_store(*args: Any, location: str | None, **options: Any) -> None:
        of_group: str | None = click.get_current_context().obj
        chosen = location or of_group or os.environ.get(STORE_VARIABLE) or DEFAULT_STORE
        command(*args, location=chosen, **options)

    return with_store


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("adapters")
@click.option(
    "--store",
    "location",
    metavar="PATH",
    help=f"Folder of the store. Default: ${STORE_VARIABLE}, else {DEFAULT_STORE}.",
)
@click.pass_context
def adapters(context: click.Context, location: str | None) -> None:
    """List, show, move and check what a store holds.

    A reference reads tenant/name, tenant/name@alias, tenant/name:7 or tenant/name@sha256:<hex>.
    """
    context.obj = location


@adapters.command("ls")
@click.option("--tenant", help="Only names of this tenant.")
@click.option("--kind", type=click.Choice(KINDS), help="Only artefacts of this kind.")
@click.option("--limit", default=100, show_default=True, help="Names per page.")
@click.option("--after", metavar="NAME", help="Continue after this tenant/name.")
@json_option
@store_option
def list_names(
    location: str,
    tenant: str | None,
    kind: Any,
    limit: int,
    after: str | None,
    as_json: bool,
) -> None:
    """List names with their newest version. Example: patchbay adapters ls --tenant acme"""
    with _open(location) as store:
        found = store.list(tenant=tenant, kind=kind, limit=limit, after=after)
    if as_json:
        print_json([version.as_json() for version in found])
    else:
        print_versions(found)
    if len(found) == limit:
        click.echo(f"There may be more: --after {found[-1].full_name}", err=True)


@adapters.command("show")
@click.argument("reference")
@json_option
@store_option
def show(location: str, reference: str, as_json: bool) -> None:
    """Show one version. Example: patchbay adapters show acme/redact-email@prod"""
    with _open(location) as store:
        version = store.resolve(reference)
        manifest = version.manifest
        aliases = store.aliases(version.full_name)
        numbers = [item.number for item in store.versions(version.full_name) if not item.is_deleted]
    document = manifest.model_dump(mode="json")
    if as_json:
        about = {"all_aliases": aliases, "live_versions": numbers, "manifest": document}
        print_json(version.as_json() | about)
        return
    signature = manifest.signature
    primitives = sorted({part.primitive for part in manifest.parts})
    rows = [
        ("reference", version.reference),
        ("kind", version.kind),
        ("family", manifest.family),
        ("backbone", version.backbone),
        *([("bank", version.bank)] if version.bank else []),
        ("parts", f"{len(manifest.parts)} ({', '.join(primitives)})"),
        ("tensors", f"{len(manifest.tensors)}, {version.data_bytes} bytes"),
        ("created", f"{version.created_at} by {version.actor}"),
        ("versions", ", ".join(str(number) for number in numbers)),
        ("aliases", ", ".join(f"{alias} -> {number}" for alias, number in aliases.items())),
    ]
    if signature is not None:
        rows.append(("task", signature.task))
        rows.append(("description", signature.description))
        if signature.labels:
            rows.append(("labels", ", ".join(signature.labels)))
        rows.extend(
            ("example", f"{item.input!r} -> {item.output!r}") for item in signature.examples
        )
    for key, value in manifest.provenance.items():
        rows.append((key, value if isinstance(value, str) else json.dumps(value)))
    print_table(rows)


@adapters.command("push")
@click.argument("folder", type=click.Path(path_type=Path))
@click.argument("name")
@click.option("--alias", "aliases", multiple=True, help="Alias to move here. Default: prod.")
@click.option("--no-alias", is_flag=True, help="Move no alias.")
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
    no_alias: bool,
    backbone_folder: Path | None,
    as_json: bool,
) -> None:
    """Publish an artefact folder as the next version of tenant/name.

    Example: patchbay adapters push runs/redact acme/redact-email
    """
    from adapters_store.artefact import read_artefact
    from adapters_store.backbone import Backbone

    if aliases and no_alias:
        raise UsageError("--alias and --no-alias exclude each other")
    artefact = read_artefact(folder)
    with _open(location, create=True) as store:
        if backbone_folder is not None:
            _register(store, Backbone.from_folder(backbone_folder))
        chosen = () if no_alias else (aliases or ("prod",))
        version = store.publish(name, artefact, aliases=chosen)
    if as_json:
        print_json(version.as_json())
    else:
        click.echo(version.reference)


@adapters.command("pull")
@click.argument("reference")
@click.argument("folder", type=click.Path(path_type=Path))
@store_option
def pull(location: str, reference: str, folder: Path) -> None:
    """Write a version's manifest and data to a folder.

    Example: patchbay adapters pull acme/redact-email:3 out/
    """
    from adapters_store.artefact import write_artefact
    from adapters_store.manifest import MANIFEST_FILE

    with _open(location) as store:
        version = store.resolve(reference)
        artefact = store.artefact(version.digest)
    target = folder / MANIFEST_FILE
    if target.exists() and target.read_bytes() != artefact.manifest.canonical:
        raise ConflictError(
            f"{target} holds another artefact", hint="Choose an empty folder, or remove the file."
        )
    click.echo(str(write_artefact(artefact, folder)))
    click.echo(f"Pulled {version.reference}", err=True)


@adapters.command("alias")
@click.argument("name")
@click.argument("alias")
@click.argument("version", type=int)
@click.option("--expected", type=int, help="Version it must point at now; 0 for none.")
@click.option("--reason", default="", help="Kept in the alias's history.")
@store_option
def alias(
    location: str, name: str, alias: str, version: int, expected: int | None, reason: str
) -> None:
    """Point an alias of tenant/name at a version.

    Example: patchbay adapters alias acme/redact-email prod 3 --expected 2
    """
    with _open(location) as store:
        found = store.set_alias(name, alias, version, expected_version=expected, reason=reason)
    click.echo(f"{found.full_name}@{alias}")
    click.echo(f"{found.full_name}@{alias} is now version {found.number}", err=True)


@adapters.command("rm")
@click.argument("reference")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--reason", default="", help="Kept with the deletion.")
@store_option
def remove(location: str, reference: str, yes: bool, reason: str) -> None:
    """Delete a version, or a whole tenant/name. `restore` undoes it.

    Example: patchbay adapters rm acme/redact-email:2 --yes --reason "bad labels"
    """
    with _open(location) as store:
        if not yes:
            if not sys.stdin.isatty():
                raise UsageError(f"deleting {reference} needs --yes where nobody can be asked")
            if not click.confirm(f"Delete {reference}?", err=True):
                click.echo("Nothing was deleted.", err=True)
                return
        for version in store.delete(reference, reason=reason):
            click.echo(version.reference)


@adapters.command("restore")
@click.argument("reference")
@store_option
def restore(location: str, reference: str) -> None:
    """Undo the deletion of a version, or of a whole tenant/name."""
    with _open(location) as store:
        for version in store.restore(reference):
            click.echo(version.reference)


@adapters.command("verify")
@click.argument("reference", required=False)
@json_option
@store_option
def verify(location: str, reference: str | None, as_json: bool) -> None:
    """Read and hash every stored byte of a reference, or of the whole store.

    Prints one finding per damage and exits with 5 if there is any.
    """
    with _open(location) as store:
        findings = store.verify(reference)
    if as_json:
        print_json([finding.as_json() for finding in findings])
    else:
        print_table([(item.reference, item.blob, item.problem, item.message) for item in findings])
    if findings:
        raise CorruptStoreError(f"{len(findings)} damaged blobs found")
    click.echo("Everything is sound.", err=True)


def _open(location: str, *, create: bool = False) -> Store:
    from adapters_store.store import Store

    return Store.open(location, create=create)


def _register(store: Store, backbone: Any) -> None:
    """Register under the folder's name unless the fingerprint is known under another."""
    known = {record.fingerprint for record in store.backbones()}
    if backbone.fingerprint not in known:
        record = store.add_backbone(backbone)
        click.echo(f"Registered backbone {record.name} ({record.fingerprint})", err=True)
