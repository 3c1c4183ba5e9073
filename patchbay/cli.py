"""The command ``patchbay``: a lazy table of subcommands and one place where errors become exits.

A subcommand's module is imported when it is used, so ``patchbay --help`` imports none of them.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from adapters_store.errors import PatchbayError
from adapters_store.lazy_group import LazyGroup
from adapters_store.refused import as_typed

EXIT_INTERRUPTED = 130

COMMANDS: dict[str, str] = {
    "adapters": "adapters_store.cli:adapters",
    "serve": "serving.cli:serve",
    "train": "training.cli:train",
    "adapt": "training.cli_adapt:adapt",
    "eval": "training.cli_adapt:evaluate",
    "publish": "training.cli:publish",
    "report": "training.cli:report",
    "demo": "patchbay.demo:demo",
    "doctor": "patchbay.doctor:doctor",
    "bench": "patchbay.bench:bench",
}
SUMMARIES: dict[str, str] = {
    "adapters": "List, show, move and check what a store holds.",
    "serve": "Serve every task of a store over HTTP.",
    "train": "Train adapters and banks from recipes.",
    "adapt": "Teach one new task from a few examples.",
    "eval": "Score an artefact on a data set.",
    "publish": "Publish a training run to a store.",
    "report": "Write a page with the pictures of a training run.",
    "demo": "Start the whole system and show it at work.",
    "doctor": "Report on this machine and installation.",
    "bench": "Run the benchmarks.",
}


def _print_version(context: click.Context, _: click.Parameter, is_asked: bool) -> None:
    if not is_asked or context.resilient_parsing:
        return
    from importlib.metadata import PackageNotFoundError, version

    try:
        number = version("patchbay")
    except PackageNotFoundError:
        number = "(not installed)"
    click.echo(f"patchbay {number}")
    context.exit()


@click.group(
    cls=LazyGroup,
    table=COMMANDS,
    summaries=SUMMARIES,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_version,
    help="Print the version.",
)
def patchbay() -> None:
    """Serve thousands of fine-tuned tasks from one frozen backbone.

    Exit codes: 0 ok, 2 usage, 3 not found, 4 conflict, 5 invalid artefact, 6 incompatible,
    7 forbidden, 8 unavailable, 130 interrupted.
    """


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code; every typed error is told on stderr."""
    try:
        result: Any = patchbay.main(
            args=None if arguments is None else list(arguments),
            prog_name="patchbay",
            standalone_mode=False,
        )
    except PatchbayError as error:
        return _tell(error)
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted.", err=True)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        _silence_stdout()
        return 1
    except OSError as error:
        if error.filename is not None:
            return _tell(as_typed(error, f"cannot use {os.fsdecode(error.filename)}"))
        _silence_stdout()
        return _tell(as_typed(error, "cannot go on"))
    return result if isinstance(result, int) else 0


def _tell(error: PatchbayError) -> int:
    click.echo(f"error: {error.message}\nhint: {error.hint}", err=True)
    return error.exit_code


def _silence_stdout() -> None:
    """Nobody reads stdout, or it is full: keep the interpreter from flushing it at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
