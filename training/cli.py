"""``patchbay train``, ``adapt``, ``eval`` and ``publish``. Data on stdout, talk on stderr."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from adapters_store.cli import json_option, store_option

if TYPE_CHECKING:
    from adapters_store.store import Store
    from training.run import Run

RUNS = Path("runs")
MODES = ("z", "mu", "full", "lora", "ia3")
INITS = ("auto", "uniform", "nearest", "blend", "gradient", "embedding")

_folder = click.Path(path_type=Path, file_okay=False)
_file = click.Path(path_type=Path, dir_okay=False)


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
def run_recipe(recipe: str, out: Path | None, settings: tuple[str, ...]) -> None:
    """Train RECIPE, a packaged name or a YAML file.

    Example: patchbay train run bytes-small --out runs/first --set train.steps=200
    """
    from adapters_store.errors import ConflictError
    from training import checkpoint
    from training.recipe import find_recipe, load_recipe
    from training.run import Run

    chosen = load_recipe(find_recipe(recipe), settings)
    folder = out or RUNS / chosen.name
    if checkpoint.latest_step(folder) is not None:
        raise ConflictError(
            f"{folder} already holds a run",
            hint=f"Give another --out, or `patchbay train resume {folder}`.",
        )
    _train(Run.build(chosen), folder)


@train.command("resume")
@click.argument("folder", type=_folder)
def resume(folder: Path) -> None:
    """Go on with the run in FOLDER, bit for bit as if it had not stopped.

    Example: patchbay train resume runs/bytes
    """
    from training.run import Run, read_recipe

    _train(Run.build(read_recipe(folder)), folder)


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
@click.option("--form", type=click.Choice(("routing", "adapter")), default="routing")
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

    from training.publish import publish_run

    options["dtype"] = getattr(torch, options["dtype"])
    with _open(location) as store:
        versions = publish_run(folder, store, tenant, **options)
    _print([version.as_json() for version in versions], as_json)


@click.command("adapt")
@click.option("--backbone", "folder", type=_folder, required=True, help="Backbone folder.")
@click.option(
    "--bank", help="Bank: a reference or an artefact folder; for lora an adapter to tune."
)
@click.option("--data", type=_file, required=True, help="JSON Lines: input, output[, part].")
@click.option("--mode", type=click.Choice(MODES), default="z", show_default=True)
@click.option("--init", type=click.Choice(INITS), default="auto", show_default=True)
@click.option("--name", required=True, metavar="TENANT/TASK", help="Name to publish under.")
@click.option("--description", default="", help="What the task does, for its signature.")
@click.option("--steps", type=click.IntRange(min=1), help="Updates. Default: 40.")
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--max-input-tokens", type=click.IntRange(min=1), default=128, show_default=True)
@click.option("--max-output-tokens", type=click.IntRange(min=1), default=64, show_default=True)
@json_option
@store_option
def adapt(
    location: str,
    folder: Path,
    bank: str | None,
    data: Path,
    name: str,
    description: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Teach one new task from a few examples and publish it.

    Example: patchbay adapt --backbone F --bank acme/bank --data new.jsonl --name acme/new
    """
    from adapters_store.names import parse_name
    from training.adapt import AdaptConfig, Teacher
    from training.lookup import file_task, find_artefact, neighbours_of

    reference = parse_name(name)
    config = AdaptConfig(**{key: value for key, value in options.items() if value is not None})
    teacher = Teacher.open(folder)
    task = file_task(
        data, reference.name, has_labels=teacher.kind == "classification", about=description
    )
    with _open(location) as store:
        artefact = find_artefact(store, bank) if bank else None
        others = neighbours_of(store, artefact) if artefact and config.init != "uniform" else []
        taught = teacher.teach(task, config, artefact, others)
        if teacher.backbone.fingerprint not in {r.fingerprint for r in store.backbones()}:
            store.add_backbone(teacher.backbone)
        version = store.publish(name, taught.artefact)
    _print([version.as_json() | {"metrics": taught.metrics}], as_json)


@click.command("eval")
@click.argument("reference")
@click.option("--backbone", "folder", type=_folder, required=True, help="Backbone folder.")
@click.option("--data", type=_file, required=True, help="JSON Lines: input, output[, part].")
@click.option("--part", default="test", show_default=True, help="Which rows; all if it is empty.")
@json_option
@store_option
def evaluate(
    location: str, reference: str, folder: Path, data: Path, part: str, as_json: bool
) -> None:
    """Score REFERENCE (in the store, or an artefact folder) on a file: exact match.

    Example: patchbay eval acme/redact-email --backbone F --data test.jsonl
    """
    from training.evaluation import artefact_accuracy
    from training.lookup import file_examples, find_artefact, find_bank

    examples = file_examples(data, part)
    with _open(location) as store:
        artefact = find_artefact(store, reference)
        bank = find_bank(store, artefact)
    score = artefact_accuracy(folder, artefact, bank, examples)
    result = {"reference": reference, "digest": artefact.digest, "exact_match": score}
    if as_json:
        click.echo(json.dumps(result | {"num_examples": len(examples)}, indent=2))
    else:
        click.echo(f"{reference}  exact match {score:.4f} on {len(examples)} examples")


def _train(run: Run, folder: Path) -> None:
    from training.progress import progress

    with progress(run.recipe.train.steps) as report:
        outcome = run.train(folder, report)
    click.echo(json.dumps({"run": str(folder), **outcome.__dict__}))


def _open(location: str) -> Store:
    from adapters_store.store import Store

    return Store.open(location)


def _print(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        metrics = "".join(f"  {key} {value}" for key, value in row.get("metrics", {}).items())
        click.echo(f"{row['reference']}  {row['kind']}{metrics}")
