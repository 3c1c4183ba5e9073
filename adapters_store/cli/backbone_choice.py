"""Backbones that a command is given as folders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from adapters_store.backbone import Backbone
    from adapters_store.store import Store


def register(store: Store, backbone: Backbone) -> None:
    """Register under the folder's name unless the fingerprint is known under another."""
    known = {record.fingerprint for record in store.backbones()}
    if backbone.fingerprint not in known:
        record = store.add_backbone(backbone)
        click.echo(f"Registered backbone {record.name} ({record.fingerprint})", err=True)


def read_folder(text: str | None) -> Backbone | None:
    """The backbone in a folder, or None for a name; a path is told by its slash."""
    if text is None or "/" not in text:
        return None
    from adapters_store.backbone import Backbone

    return Backbone.from_folder(text)
