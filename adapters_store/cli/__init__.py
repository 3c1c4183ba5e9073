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
    "versions": "adapters_store.cli.listing:versions",
    "show": "adapters_store.cli.listing:show",
    "resolve": "adapters_store.cli.listing:resolve",
    "history": "adapters_store.cli.listing:history",
    "diff": "adapters_store.cli.comparing:diff",
    "lineage": "adapters_store.cli.facts:lineage",
    "inspect": "adapters_store.cli.foreign:inspect",
    "import": "adapters_store.cli.foreign:import_source",
    "export": "adapters_store.cli.outgoing:export",
    "convert": "adapters_store.cli.outgoing:convert",
    "push": "adapters_store.cli.folders:push",
    "pull": "adapters_store.cli.folders:pull",
    "alias": "adapters_store.cli.pointers:alias",
    "unalias": "adapters_store.cli.pointers:unalias",
    "tag": "adapters_store.cli.pointers:tag",
    "evaluate": "adapters_store.cli.facts:evaluate",
    "evaluations": "adapters_store.cli.facts:evaluations",
    "pin": "adapters_store.cli.pins:pin",
    "unpin": "adapters_store.cli.pins:unpin",
    "pins": "adapters_store.cli.pins:pins",
    "rm": "adapters_store.cli.removal:remove",
    "restore": "adapters_store.cli.removal:restore",
    "gc": "adapters_store.cli.removal:collect",
    "verify": "adapters_store.cli.checking:verify",
    "audit": "adapters_store.cli.audit:audit",
    "webhooks": "adapters_store.cli.webhooks:webhooks",
    "sign": "adapters_store.cli.signatures:sign",
    "keys": "adapters_store.cli.signatures:keys",
    "init": "adapters_store.cli.setup:init",
    "backbones": "adapters_store.cli.setup:backbones",
}
SUMMARIES: dict[str, str] = {
    "ls": "List names with their newest version.",
    "versions": "List every version of tenant/name, deleted ones too.",
    "show": "Show one version.",
    "resolve": "Print the version that a reference means, now or at a time.",
    "history": "List every move of a name's aliases.",
    "diff": "Compare two versions.",
    "lineage": "Show what a version was made from.",
    "inspect": "Say whether SOURCE can be imported.",
    "import": "Import SOURCE as the next version of tenant/name.",
    "export": "Write a version as a folder that PEFT, the adapters library or another store reads.",
    "convert": "Convert FOLDER's pickled weights to safetensors.",
    "push": "Publish an artefact folder as the next version of tenant/name.",
    "pull": "Write a version's manifest and data to a folder.",
    "alias": "Point an alias of tenant/name at a version.",
    "unalias": "Remove an alias of tenant/name.",
    "tag": "Set and remove tags.",
    "evaluate": "Record a measured number of a version.",
    "evaluations": "List the measured numbers of a version.",
    "pin": "Keep a version's content.",
    "unpin": "Remove an owner's pin.",
    "pins": "List what is kept, by whom and why.",
    "rm": "Delete a version, or a whole tenant/name.",
    "restore": "Undo the deletion of a version.",
    "gc": "Give up what was deleted before the restore window.",
    "verify": "Read and hash every stored byte.",
    "audit": "Read the log of every change.",
    "webhooks": "Tell URLs of changes.",
    "sign": "Sign a version, or an artefact folder.",
    "keys": "Make and show signing keys.",
    "init": "Make a store.",
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
