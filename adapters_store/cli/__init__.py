"""``patchbay adapters``: thin commands over the store, a small file per group of verbs.

Data on stdout, talk on stderr. A verb's module is imported when it is used.
"""

from __future__ import annotations

import click

from adapters_store.cli.options import (
    DEFAULT_STORE,
    STORE_VARIABLE,
    json_option,
    open_store,
    store_option,
)
from adapters_store.lazy_group import LazyGroup

VERBS: dict[str, str] = {
    "ls": "adapters_store.cli.listing:list_names",
    "show": "adapters_store.cli.listing:show",
    "resolve": "adapters_store.cli.listing:resolve",
    "history": "adapters_store.cli.listing:history",
    "diff": "adapters_store.cli.comparing:diff",
    "inspect": "adapters_store.cli.foreign:inspect",
    "import": "adapters_store.cli.foreign:import_source",
    "push": "adapters_store.cli.folders:push",
    "pull": "adapters_store.cli.folders:pull",
    "alias": "adapters_store.cli.pointers:alias",
    "rm": "adapters_store.cli.removal:remove",
    "restore": "adapters_store.cli.removal:restore",
    "verify": "adapters_store.cli.checking:verify",
    "sign": "adapters_store.cli.signatures:sign",
    "keys": "adapters_store.cli.signatures:keys",
    "backbones": "adapters_store.cli.setup:backbones",
}
SUMMARIES: dict[str, str] = {
    "ls": "List names with their newest version.",
    "show": "Show one version.",
    "resolve": "Print the version that a reference means, now or at a time.",
    "history": "List every move of a name's aliases.",
    "diff": "Compare two versions.",
    "inspect": "Say whether SOURCE can be imported.",
    "import": "Import SOURCE as the next version of tenant/name.",
    "push": "Publish an artefact folder as the next version of tenant/name.",
    "pull": "Write a version's manifest and data to a folder.",
    "alias": "Point an alias of tenant/name at a version.",
    "rm": "Delete a version, or a whole tenant/name.",
    "restore": "Undo the deletion of a version.",
    "verify": "Read and hash every stored byte.",
    "sign": "Sign a version, or an artefact folder.",
    "keys": "Make and show signing keys.",
    "backbones": "List and register backbones.",
}


@click.group("adapters", cls=LazyGroup, table=VERBS, summaries=SUMMARIES)
@click.option(
    "--store",
    "location",
    metavar="PATH",
    help=f"Folder or store.yaml of the store. Default: ${STORE_VARIABLE}, else {DEFAULT_STORE}.",
)
@click.pass_context
def adapters(context: click.Context, location: str | None) -> None:
    """Keep adapters: import, publish, point at, compare, check and remove them.

    A reference reads tenant/name, tenant/name@alias, tenant/name:7 or tenant/name@sha256:<hex>. A
    source is a folder, file:///folder, s3://bucket/prefix or hf://owner/repo[@revision][/subfolder].
    """
    context.obj = location


__all__ = ["SUMMARIES", "VERBS", "adapters", "json_option", "open_store", "store_option"]
