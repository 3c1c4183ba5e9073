"""``patchbay adapt`` and ``eval``. Data on stdout, talk on stderr."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from adapters_store.cli import json_option, store_option
from adapters_store.cli.options import open_store
from training.cli import print_rows

MODES = ("z", "mu", "full", "soup", "lora", "ia3")
INITS = ("auto", "uniform", "nearest", "blend", "gradient", "embedding")
GATES = ("sigmoid", "softmax", "relaxed_bernoulli", "straight_through")
GRANULARITIES = ("site", "block", "layer", "stack", "global")
LONG_INPUT = ("error", "cut", "drop")
OBJECTIVES = ("text2text", "classification", "choice")

_folder = click.Path(path_type=Path, file_okay=False)
_file = click.Path(path_type=Path, dir_okay=False)
_count = click.IntRange(min=1)
_rate = click.FloatRange(min=0, min_open=True)
_data = click.option(
    "--data",
    type=_file,
    required=True,
    help="JSON Lines: input, output[, part, references, choices].",
)


@click.command("adapt")
@click.option("--backbone", "folder", type=_folder, required=True, help="Backbone folder.")
@click.option(
    "--bank", help="Bank: a reference or an artefact folder; for lora an adapter to tune."
)
@click.option(
    "--library", multiple=True, help="An adapter of a library to use as the bank; repeat for each."
)
@_data
@click.option("--mode", type=click.Choice(MODES), default="z", show_default=True)
@click.option("--init", type=click.Choice(INITS), default="auto", show_default=True)
@click.option("--gate", type=click.Choice(GATES), default="sigmoid", show_default=True)
@click.option(
    "--granularity",
    type=click.Choice(GRANULARITIES),
    help="Sites that share a router. Default: as the bank was trained.",
)
@click.option(
    "--objective",
    "kind",
    type=click.Choice(OBJECTIVES),
    help="What is learnt. Default: text2text where the backbone writes, else classification.",
)
@click.option("--name", required=True, metavar="TENANT/TASK", help="Name to publish under.")
@click.option("--description", default="", help="What the task does, for its signature.")
@click.option("--steps", type=_count, help="Updates. Default: 40.")
@click.option("--rows-per-step", type=_count, help="Examples of an update. Default: 32.")
@click.option("--learning-rate", type=_rate, help="Of factors and heads. Default: 0.002.")
@click.option("--router-learning-rate", type=_rate, help="Of routing logits. Default: 0.1.")
@click.option("--rank", type=_count, help="Of a fresh adapter. Default: 8.")
@click.option("--sites", multiple=True, help="Pattern of a fresh adapter's sites. Default: all.")
@click.option("--metric", help="Scores dev and test. Default: exact_match.")
@click.option(
    "--eval-every", type=_count, help="Score dev every so many updates and keep the best."
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--max-input-tokens", type=_count, default=128, show_default=True)
@click.option("--max-output-tokens", type=_count, default=64, show_default=True)
@click.option(
    "--on-long-input",
    type=click.Choice(LONG_INPUT),
    help="Rows over the limits. Default: error, but classification cuts inputs.",
)
@json_option
@store_option
def adapt(
    location: str,
    folder: Path,
    bank: str | None,
    library: tuple[str, ...],
    data: Path,
    kind: Any,
    name: str,
    description: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Teach one new task from a few examples and publish it.

    Mode `z` learns a routing over the bank, `mu` tunes its average, `full` both skills and routing;
    `soup` learns how much of each adapter of a library to take at each site; `lora` and `ia3`
    learn an adapter. Rows of part `dev` choose the best step, rows of part `test` are only scored.

    Example: patchbay adapt --backbone F --bank acme/bank --data new.jsonl --name acme/new
    """
    from adapters_store.errors import UsageError
    from adapters_store.names import parse_name
    from training.adapt import AdaptConfig, Teacher
    from training.lookup import file_task, find_source, neighbours_of

    reference = parse_name(name)
    given = {key: value for key, value in options.items() if value not in (None, ())}
    config = AdaptConfig(**given)
    is_fresh = config.mode in ("lora", "ia3") and not bank and not library
    if not is_fresh and (ignored := [key for key in ("rank", "sites") if key in given]):
        raise UsageError(
            f"--{ignored[0]} is a fresh adapter's; mode {config.mode!r} takes those of its source"
        )
    teacher = Teacher.open(folder, kind=kind)
    if "router_learning_rate" in given and config.mode not in ("z", "full", "soup"):
        raise UsageError(f"--router-learning-rate: mode {config.mode!r} learns no mixture")
    has_head = teacher.kind == "classification"
    if "learning_rate" in given and config.mode in ("z", "soup") and not has_head:
        raise UsageError(
            f"--learning-rate: mode {config.mode!r} learns a mixture, at --router-learning-rate"
        )
    task = file_task(data, reference.name, teacher.kind, about=description)
    if config.eval_every and not task.dev:
        raise UsageError(f"--eval-every chooses a step on dev; {data} has no rows of part `dev`")
    with open_store(location, create=True) as store:
        source = find_source(store, teacher.backbone, bank, library)
        others = neighbours_of(store, source) if source and config.init != "uniform" else []
        taught = teacher.teach(task, config, source, others)
        if teacher.backbone.fingerprint not in {r.fingerprint for r in store.backbones()}:
            store.add_backbone(teacher.backbone)
        items = [(name, taught.artefact)]
        if library and source and taught.artefact.manifest.bank:
            items.insert(0, (f"{name}-library", source))
        version = store.publish_many(items)[-1]
    print_rows([version.as_json() | {"metrics": taught.metrics}], as_json)


@click.command("eval")
@click.argument("reference")
@click.option("--backbone", "folder", type=_folder, required=True, help="Backbone folder.")
@_data
@click.option("--part", default="test", show_default=True, help="Which rows; all if it is empty.")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    default=("exact_match",),
    show_default=True,
    help="exact_match, accuracy or rouge_l; may be given several times.",
)
@click.option(
    "--objective",
    "kind",
    type=click.Choice(OBJECTIVES),
    help="How it is asked. Default: as it was trained; text2text writes freely, as served.",
)
@json_option
@store_option
def evaluate(
    location: str,
    reference: str,
    folder: Path,
    data: Path,
    part: str,
    metrics: tuple[str, ...],
    kind: Any,
    as_json: bool,
) -> None:
    """Score REFERENCE (in the store, or an artefact folder) on a file.

    Example: patchbay eval acme/redact-email --backbone F --data test.jsonl --metric rouge_l
    """
    from training.evaluation import artefact_outputs
    from training.lookup import file_examples, find_artefact, find_bank
    from training.metrics import check_metric, scores

    for metric in metrics:
        check_metric(metric)
    examples = file_examples(data, part)
    with open_store(location, create=True) as store:
        artefact = find_artefact(store, reference)
        bank = find_bank(store, artefact)
    outputs = artefact_outputs(folder, artefact, bank, examples, kind)
    means = {name: sum(scores(name, outputs, examples)) / len(examples) for name in metrics}
    if as_json:
        about = {"reference": reference, "digest": artefact.digest}
        click.echo(json.dumps(about | means | {"num_examples": len(examples)}, indent=2))
        return
    told = "  ".join(f"{name.replace('_', ' ')} {mean:.4f}" for name, mean in means.items())
    click.echo(f"{reference}  {told} on {len(examples)} examples")
