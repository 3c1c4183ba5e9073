"""``patchbay train``, ``report`` and ``publish``. Data on stdout, talk on stderr."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from adapters_store.cli import json_option, store_option
from adapters_store.cli.options import open_store

if TYPE_CHECKING:
    from training.loop import Outcome
    from training.recipe import Recipe

Command = TypeVar("Command", bound=Callable[..., Any])
RUNS = Path("runs")
FORMS = ("routing", "adapter", "shared")

_folder = click.Path(path_type=Path, file_okay=False)
_file = click.Path(path_type=Path, dir_okay=False)


def workers_options(command: Command) -> Command:
    """The options of a run on several workers by Ray Train."""
    for option in (
        click.option("--use-gpu", is_flag=True, help="One GPU for each worker."),
        click.option(
            "--max-failures",
            type=click.IntRange(min=0),
            default=3,
            show_default=True,
            help="How often dead workers are started anew.",
        ),
        click.option(
            "--ray-address", help="A running Ray: host:port or auto. Default: a private one."
        ),
        click.option("--workers", type=click.IntRange(min=1), help="Share steps out by Ray Train."),
    ):
        command = option(command)
    return command


@click.group()
def train() -> None:
    """Train adapters and banks from recipes.

    A recipe names backbone, tasks, method and optimisation; `patchbay train ls` lists those that
    come with the package. Ctrl-C saves the run, which `patchbay train resume` takes up.
    """


@train.command("run")
@click.argument("recipe")
@click.option("--out", type=_folder, help="Folder of the run. Default: runs/NAME.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Change one field.")
@click.option("--start", help="Begin with a bank, an adapter or an earlier run: reference, folder.")
@workers_options
@store_option
def run_recipe(
    location: str,
    recipe: str,
    out: Path | None,
    settings: tuple[str, ...],
    start: str | None,
    **cluster: Any,
) -> None:
    """Train RECIPE, a packaged name or a YAML file.

    With --start a bank goes on with that bank's skills; `lora` and `ia3` begin at their average.
    With --workers the losses stay the same: every step's rows are shared out.

    Example: patchbay train run bytes-small --out runs/first --set train.steps=200
    """
    from adapters_store.errors import ConflictError
    from training import checkpoint
    from training.recipe import find_recipe, load_recipe

    chosen = load_recipe(find_recipe(recipe), settings)
    folder = out or RUNS / chosen.name
    if checkpoint.latest_step(folder) is not None:
        raise ConflictError(
            f"{folder} already holds a run",
            hint=f"Give another --out, or `patchbay train resume {folder}`.",
        )
    _train(chosen, folder, start, location, **cluster)


@train.command("resume")
@click.argument("folder", type=_folder)
@workers_options
def resume(folder: Path, **cluster: Any) -> None:
    """Go on with the run in FOLDER, bit for bit as if it had not stopped.

    With another number of workers than before, the losses agree to rounding.

    Example: patchbay train resume runs/bytes
    """
    from training import checkpoint
    from training.run import read_recipe

    recipe = read_recipe(folder)
    if checkpoint.latest_step(folder) == recipe.train.steps and _is_first():
        click.echo(f"the run is complete: step {recipe.train.steps} was its last", err=True)
    _train(recipe, folder, **cluster)


@train.command("ls")
@click.option("--runs", type=_folder, default=RUNS, show_default=True, help="Folder of runs.")
@json_option
def list_runs(runs: Path, as_json: bool) -> None:
    """List the packaged recipes and the runs with their progress.

    Example: patchbay train ls --runs runs
    """
    from training import checkpoint
    from training.recipe import packaged_recipes
    from training.run import RECIPE_FILE, read_recipe

    found = sorted(path.parent for path in runs.glob(f"*/{RECIPE_FILE}"))
    listed = [
        {
            "run": str(folder),
            "recipe": read_recipe(folder).name,
            "step": checkpoint.latest_step(folder) or 0,
            "steps": read_recipe(folder).train.steps,
        }
        for folder in found
    ]
    recipes = list(packaged_recipes())
    if as_json:
        click.echo(json.dumps({"recipes": recipes, "runs": listed}, indent=2))
        return
    for name in recipes:
        click.echo(f"recipe  {name}")
    for row in listed:
        click.echo(f"run     {row['run']}  {row['recipe']}  step {row['step']}/{row['steps']}")


@click.command("report")
@click.argument("folder", type=_folder)
@click.option("--out", type=_file, help="File to write. Default: report.html in FOLDER.")
def report(folder: Path, out: Path | None) -> None:
    """Write one page of HTML with the curves, scores and routing of the run in FOLDER.

    Example: patchbay report runs/bytes-small
    """
    from training.report.page import write_report

    click.echo(str(write_report(folder, out)))


@click.command("publish")
@click.argument("folder", type=_folder)
@click.option("--tenant", required=True, help="Tenant that owns the names.")
@click.option(
    "--form",
    type=click.Choice(FORMS),
    default="routing",
    show_default=True,
    help="A routing over the bank, an adapter for each task, or one that all share.",
)
@click.option("--dtype", type=click.Choice(("bfloat16", "float32")), default="bfloat16")
@click.option("--backbone-name", help="Name of the backbone in the store.")
@click.option("--bank-name", default="bank", show_default=True, help="Name of the bank.")
@json_option
@store_option
def publish(location: str, folder: Path, tenant: str, as_json: bool, **options: Any) -> None:
    """Publish the run in FOLDER: its backbone, its bank and every task, all or none.

    Example: patchbay publish runs/bytes-small --tenant acme
    """
    import torch

    from training.export import BACKBONE_FOLDER
    from training.publish import publish_run

    options["dtype"] = getattr(torch, options["dtype"])
    with open_store(location, create=True) as store:
        versions = publish_run(folder, store, tenant, **options)
    print_rows([version.as_json() for version in versions], as_json)
    own = folder / BACKBONE_FOLDER
    if own.is_dir():
        hint = f"the run has a backbone of its own; serve it too: patchbay serve --backbone {own}"
        click.echo(hint, err=True)


def _started(recipe: Recipe, start: str, folder: Path, location: str) -> Recipe:
    """The recipe with ``method.start``: a folder, or a store's artefact kept in the run's."""
    from adapters_store.artefact import write_artefact
    from training.lookup import find_artefact

    source = Path(start)
    if not source.is_dir():
        with open_store(location) as store:
            source = write_artefact(find_artefact(store, start), folder / "start").parent
    method = recipe.method.model_copy(update={"start": str(source)})
    return recipe.model_copy(update={"method": method})


def _train(
    recipe: Recipe,
    folder: Path,
    start: str | None = None,
    location: str = "",
    *,
    workers: int | None,
    **cluster: Any,
) -> None:
    source = click.get_current_context().get_parameter_source("max_failures")
    is_cluster = cluster["ray_address"] is not None or cluster["use_gpu"]
    if workers is None and (is_cluster or source is ParameterSource.COMMANDLINE):
        raise click.UsageError("--ray-address, --max-failures and --use-gpu belong to --workers")
    try:
        if workers is None:
            outcome = _train_here(recipe, folder, start, location)
        else:
            if start is not None:
                recipe = _started(recipe, start, folder, location)
            outcome = _train_on_ray(recipe, folder, workers, **cluster)
    except KeyboardInterrupt:
        _tell_saved(folder)
        raise
    if outcome is not None:
        click.echo(json.dumps({"run": str(folder), **outcome.__dict__}))


def _tell_saved(folder: Path) -> None:
    """Say how an interrupted run goes on, once of all workers."""
    from training import checkpoint

    step = checkpoint.latest_step(folder)
    if step is not None and _is_first():
        hint = f"saved at step {step}; go on with `patchbay train resume {folder}`"
        click.echo(hint, err=True)


def _is_first() -> bool:
    """Whether this is the first of the processes that a launcher started, or the only one."""
    return os.environ.get("RANK", "0") == "0"


def _train_here(recipe: Recipe, folder: Path, start: str | None, location: str) -> Outcome | None:
    """Train in this process, alone or as one of the workers that a launcher started.

    None to all but the first of these.
    """
    from training.progress import progress
    from training.run import train_recipe
    from training.workers import Workers

    with Workers.joined(recipe.train.mixed_precision) as workers:
        with workers.agreeing():
            if start is not None and workers.is_main:
                recipe = _started(recipe, start, folder, location)
        recipe = workers.gather(recipe)[0]
        with progress(recipe.train.steps, is_shown=workers.is_main) as report:
            outcome = train_recipe(recipe, folder, workers, report=report)
        return outcome if workers.is_main else None


def _train_on_ray(
    recipe: Recipe,
    folder: Path,
    num_workers: int,
    *,
    ray_address: str | None,
    max_failures: int,
    use_gpu: bool,
) -> Outcome:
    from training.cluster import Cluster, train_on_ray
    from training.progress import progress

    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise click.UsageError("--workers starts the workers itself; leave the launcher away")
    cluster = Cluster(num_workers, ray_address, max_failures, use_gpu)
    # Ray prints what befalls its workers on stdout, where the outcome alone belongs.
    with redirect_stdout(sys.stderr), progress(recipe.train.steps) as report:
        return train_on_ray(recipe, folder, cluster, report)


def print_rows(rows: list[dict[str, Any]], as_json: bool) -> None:
    """One line per published version with its metrics, or all as JSON."""
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        metrics = "".join(f"  {key} {value}" for key, value in row.get("metrics", {}).items())
        click.echo(f"{row['reference']}  {row['kind']}{metrics}")
