"""Vouching for artefacts: ``sign`` and ``keys``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from adapters_store.cli.options import json_option, open_store, store_option
from adapters_store.errors import InvalidNameError
from adapters_store.names import parse_reference
from adapters_store.printing import print_json

if TYPE_CHECKING:
    from adapters_store.signing import PublicKey

_file = click.argument("file", type=click.Path(path_type=Path, dir_okay=False))


@click.command("sign")
@click.argument("reference")
@click.option(
    "--key", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Key file."
)
@json_option
@store_option
def sign(location: str, reference: str, key: Path, as_json: bool) -> None:
    """Sign a version, or an artefact folder that is yet to be published.

    A version's signature is kept in the store; a folder's is only printed, to be sent with it. A
    folder is written as a path that is no reference, such as ./out.

    Example: patchbay adapters sign acme/redact-email:3 --key ~/.patchbay/release.pem
    """
    from adapters_store.signing import SigningKey

    signing_key = SigningKey.read(key)
    if not _is_reference(reference):
        from adapters_store.artefact import read_artefact

        signature = signing_key.sign(read_artefact(reference).digest)
        document: dict[str, object] = {"signature": str(signature)}
    else:
        with open_store(location) as store:
            version = store.resolve(reference)
            signature = signing_key.sign(version.digest)
            document = store.signatures.add(version.reference, signature).as_json()
        click.echo(f"Signed {version.reference} with key {signature.key.id}", err=True)
    if as_json:
        print_json(document)
    else:
        click.echo(str(signature))


@click.group("keys")
def keys() -> None:
    """Make and show signing keys.

    A key file holds an Ed25519 private key in PEM and has mode 0600.
    """


@keys.command("new")
@_file
@json_option
def new_key(file: Path, as_json: bool) -> None:
    """Make a private key in FILE and print its public key.

    Example: patchbay adapters keys new ~/.patchbay/release.pem
    """
    from adapters_store.signing import SigningKey

    _print(SigningKey.create(file).public, as_json)
    click.echo(
        f"Wrote {file}; keep it secret. The public key goes to `signing` of servers.", err=True
    )


@keys.command("show")
@_file
@json_option
def show_key(file: Path, as_json: bool) -> None:
    """Print the public key of a key file.

    Example: patchbay adapters keys show ~/.patchbay/release.pem
    """
    from adapters_store.signing import SigningKey

    _print(SigningKey.read(file).public, as_json)


def _is_reference(text: str) -> bool:
    try:
        parse_reference(text)
    except InvalidNameError:
        return False
    return True


def _print(key: PublicKey, as_json: bool) -> None:
    if as_json:
        print_json({"public_key": str(key), "key_id": key.id})
    else:
        click.echo(str(key))
