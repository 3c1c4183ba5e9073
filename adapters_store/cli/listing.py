"""Reading verbs: ``ls``, ``versions``, ``show``, ``resolve``, ``history``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from adapters_store.cli.options import json_option, open_store, store_option
from adapters_store.printing import print_json, print_table, print_versions

if TYPE_CHECKING:
    from adapters_store.manifest import Manifest
    from adapters_store.records import Version

KINDS = ("adapter", "bank", "routing")


@click.command("ls")
@click.option("--tenant", help="Only names of this tenant.")
@click.option("--kind", type=click.Choice(KINDS), help="Only artefacts of this kind.")
@click.option("--tag", metavar="KEY[=VALUE]", help="Only names or versions with this tag.")
@click.option("--limit", default=100, show_default=True, help="Names per page.")
@click.option("--after", metavar="NAME", help="Continue after this tenant/name.")
@json_option
@store_option
def list_names(
    location: str,
    tenant: str | None,
    kind: Any,
    tag: str | None,
    limit: int,
    after: str | None,
    as_json: bool,
) -> None:
    """List names with their newest version. Example: patchbay adapters ls --tenant acme"""
    with open_store(location) as store:
        found = store.list(tenant=tenant, kind=kind, limit=limit, after=after, tag=tag)
    if as_json:
        print_json([version.as_json() for version in found])
    else:
        print_versions(found)
    if len(found) == limit:
        click.echo(f"There may be more: --after {found[-1].full_name}", err=True)


@click.command("versions")
@click.argument("name")
@click.option("--limit", default=100, show_default=True, help="Versions per page.")
@click.option("--before", type=int, metavar="N", help="Continue below this version.")
@json_option
@store_option
def versions(location: str, name: str, limit: int, before: int | None, as_json: bool) -> None:
    """List every version of tenant/name, deleted ones too, newest first.

    Example: patchbay adapters versions acme/redact-email
    """
    with open_store(location) as store:
        found = store.versions(name, limit=limit, before=before)
    if as_json:
        print_json([version.as_json() for version in found])
    else:
        head = ("VERSION", "ALIASES", "BYTES", "CREATED", "DIGEST", "STATE")
        print_table([head, *map(_version_row, found)])
    if len(found) == limit:
        click.echo(f"There may be more: --before {found[-1].number}", err=True)


def _version_row(version: Version) -> tuple[str, ...]:
    state = "live"
    if version.is_deleted:
        reason = f": {version.delete_reason}" if version.delete_reason else ""
        state = f"deleted {(version.deleted_at or '')[:19]} by {version.deleted_by}{reason}"
    return (
        str(version.number),
        ",".join(version.aliases) or "-",
        str(version.data_bytes),
        version.created_at[:19],
        version.digest[:19],
        f"{state}, content collected" if version.purged_at else state,
    )


@click.command("show")
@click.argument("reference")
@json_option
@store_option
def show(location: str, reference: str, as_json: bool) -> None:
    """Show one version. Example: patchbay adapters show acme/redact-email@prod"""
    with open_store(location) as store:
        version = store.resolve(reference)
        manifest = version.manifest
        aliases = store.aliases(version.full_name)
        signatures = store.signatures.list(version.digest)
        numbers = [item.number for item in store.versions(version.full_name) if not item.is_deleted]
    if as_json:
        about = {
            "all_aliases": aliases,
            "live_versions": numbers,
            "signatures": [signature.as_json() for signature in signatures],
            "manifest": manifest.model_dump(mode="json"),
        }
        print_json(version.as_json() | about)
        return
    rows = _rows(version, manifest)
    rows.append(("versions", ", ".join(str(number) for number in numbers)))
    rows.append(("aliases", ", ".join(f"{alias} -> {number}" for alias, number in aliases.items())))
    rows.extend(("signed by", f"{one.signature.key} at {one.at}") for one in signatures)
    for key, value in manifest.provenance.items():
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        rows.append((f"provenance.{key}", text))
    print_table(rows)


def _rows(version: Version, manifest: Manifest) -> list[tuple[str, str]]:
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
    ]
    signature = manifest.signature
    if signature is not None:
        rows.append(("task", signature.task))
        rows.append(("description", signature.description))
        if signature.labels:
            rows.append(("labels", ", ".join(signature.labels)))
        rows.extend(
            ("example", f"{item.input!r} -> {item.output!r}") for item in signature.examples
        )
    return rows


@click.command("resolve")
@click.argument("reference")
@click.option("--at", metavar="TIME", help="As of this ISO time; UTC where it names no offset.")
@json_option
@store_option
def resolve(location: str, reference: str, at: str | None, as_json: bool) -> None:
    """Print the version that a reference means, now or at a time.

    Example: patchbay adapters resolve acme/redact-email@prod --at 2026-07-01T12:00
    """
    with open_store(location) as store:
        version = store.resolve(reference, at=at)
    if as_json:
        print_json(version.as_json())
    else:
        click.echo(version.reference)
    if version.is_deleted:
        click.echo(f"It was deleted at {version.deleted_at}.", err=True)


@click.command("history")
@click.argument("name")
@click.option("--alias", help="Only moves of this alias.")
@json_option
@store_option
def history(location: str, name: str, alias: str | None, as_json: bool) -> None:
    """List every move of a name's aliases, oldest first.

    Example: patchbay adapters history acme/redact-email --alias prod
    """
    with open_store(location) as store:
        found = [one for one in store.alias_history(name) if alias in (None, one.alias)]
    if as_json:
        print_json([event.as_json() for event in found])
        return
    rows = [("AT", "ALIAS", "FROM", "TO", "ACTOR", "REASON")]
    for event in found:
        before, after = (str(number or "-") for number in (event.from_version, event.to_version))
        rows.append((event.at[:19], event.alias, before, after, event.actor, event.reason))
    print_table(rows)
