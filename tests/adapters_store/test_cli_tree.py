"""The tree of ``patchbay adapters``: names and options are a promise to scripts."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from adapters_store.cli import SUMMARIES, VERBS, adapters

IMPORT = [
    "description", "labels", "max_input_tokens", "max_output_tokens", "poly_task",
    "prompt_template", "task",
]  # fmt: skip
STORE, LISTING = ["location"], ["as_json", "location"]
ALIASES = ["given", "no_alias"]
TREE: dict[str, list[str]] = {
    "ls": ["after", "kind", "limit", "tag", "tenant", *LISTING],
    "show": ["reference", *LISTING],
    "resolve": ["at", "reference", *LISTING],
    "versions": ["before", "limit", "name", *LISTING],
    "history": ["alias", "name", *LISTING],
    "diff": ["left", "right", *LISTING],
    "lineage": ["reference", *LISTING],
    "inspect": ["backbone", "source", *IMPORT, *LISTING],
    "import": ["backbone", "dry_run", "name", "source", *ALIASES, *IMPORT, *LISTING],
    "export": ["folder", "form", "reference", *STORE],
    "convert": ["as_json", "folder", "out"],
    "push": ["backbone_folder", "folder", "name", *ALIASES, *LISTING],
    "pull": ["folder", "reference", *STORE],
    "alias": ["alias", "evidence", "expected", "name", "reason", "version", *STORE],
    "unalias": ["alias", "expected", "name", "reason", *STORE],
    "tag": ["reference", "removed", "settings", *LISTING],
    "evaluate": [
        "data_digest", "metric", "notes", "num_examples", "reference", "seed", "split", "value",
        *LISTING,
    ],
    "evaluations": ["reference", *LISTING],
    "pin": ["owner", "reason", "reference", *LISTING],
    "unpin": ["owner", "reference", *STORE],
    "pins": ["owner", *LISTING],
    "rm": ["dry_run", "reason", "reference", "yes", *STORE],
    "restore": ["reference", *STORE],
    "gc": ["days", "dry_run", "yes", *LISTING],
    "verify": ["is_all", "reference", *LISTING],
    "audit ls": ["after", "kind", "limit", "tenant", *LISTING],
    "audit verify": ["expect", *LISTING],
    "webhooks add": ["allow_private", "events", "secret_file", "tenant", "url", *LISTING],
    "webhooks ls": ["tenant", *LISTING],
    "webhooks rm": ["webhook", "yes", *STORE],
    "webhooks deliver": ["follow", *LISTING],
    "webhooks dead": ["webhook", *LISTING],
    "webhooks redeliver": ["sequence", "webhook", *STORE],
    "sign": ["key", "reference", *LISTING],
    "keys new": ["as_json", "file"],
    "keys show": ["as_json", "file"],
    "init": [
        "blobs", "cache_bytes", "cache_folder", "catalog", "restore_window_days",
        "s3_endpoint_url", "s3_region", *LISTING,
    ],
    "backbones ls": LISTING,
    "backbones add": ["folder", "name", *LISTING],
}  # fmt: skip


def commands(group: click.Group, prefix: str = "") -> dict[str, click.Command]:
    """Every command that is no group, by its words."""
    found: dict[str, click.Command] = {}
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found |= commands(command, f"{prefix}{name} ")
        else:
            found[prefix + name] = command
    return found


FOUND = commands(adapters)


def test_the_tree_of_verbs_and_options_is_frozen() -> None:
    found = {name: sorted(str(o.name) for o in c.params) for name, c in FOUND.items()}
    assert found == {name: sorted(options) for name, options in TREE.items()}


def test_the_help_of_the_group_imports_no_verb_and_no_database() -> None:
    program = (
        "import sys\n"
        "from patchbay.cli import main\n"
        "main(['adapters', '--help'])\n"
        "loaded = [name for name in sys.modules if name.startswith('adapters_store.cli.')]\n"
        "print(sorted(loaded), 'sqlalchemy' in sys.modules, file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stderr == "['adapters_store.cli.options'] False\n"
    assert all(f"  {name} " in done.stdout for name in VERBS)


def test_every_verb_has_the_summary_of_its_own_help() -> None:
    assert list(SUMMARIES) == list(VERBS)
    context = click.Context(adapters)
    for name, summary in SUMMARIES.items():
        command = adapters.get_command(context, name)
        assert command is not None
        assert command.help is not None
        words = " ".join(command.help.split())
        assert words.startswith(summary.rstrip(".")), (name, summary)


@pytest.mark.parametrize("name", list(TREE))
def test_every_command_shows_an_example(name: str) -> None:
    assert f"Example: patchbay adapters {name}" in " ".join((FOUND[name].help or "").split())
