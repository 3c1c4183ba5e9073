"""What is known of versions: ``lineage``, ``evaluate`` and ``evaluations``."""

from __future__ import annotations

import click

from adapters_store.cli.options import json_option, open_store, store_option
from adapters_store.printing import print_json, print_table


@click.command("lineage")
@click.argument("reference")
@json_option
@store_option
def lineage(location: str, reference: str, as_json: bool) -> None:
    """Show what a version was made from, and what was made from it.

    Example: patchbay adapters lineage acme/redact-email
    """
    with open_store(location) as store:
        found = store.lineage(reference)
    if as_json:
        print_json(found.as_json())
        return
    rows = [("RELATION", "DEPTH", "KIND", "DIGEST", "REFERENCES")]
    for one in (*found.ancestors, *found.children):
        names = ", ".join(one.references) or "-"
        rows.append((one.relation, str(one.depth), one.kind or "-", one.digest[:19], names))
    print_table(rows)
    for key, value in (found.stated or {}).items():
        click.echo(f"{key}: {value}")
    if found.is_cut:
        click.echo("There is more than is shown.", err=True)


@click.command("evaluate")
@click.argument("reference")
@click.argument("metric")
@click.argument("value", type=float)
@click.option("--split", default="test", show_default=True, help="Part of the data.")
@click.option("--data-digest", metavar="SHA256", help="sha256:<hex> of the examples.")
@click.option("--num-examples", type=click.IntRange(min=0))
@click.option("--seed", type=int)
@click.option("--notes", default="")
@json_option
@store_option
def evaluate(
    location: str,
    reference: str,
    metric: str,
    value: float,
    split: str,
    data_digest: str | None,
    num_examples: int | None,
    seed: int | None,
    notes: str,
    as_json: bool,
) -> None:
    """Record a measured number of a version; it is never changed afterwards.

    Example: patchbay adapters evaluate acme/redact-email:3 exact_match 0.93 --num-examples 500
    """
    from adapters_store.ledger.evaluations import Evaluation

    evaluation = Evaluation(metric, value, split, data_digest, num_examples, seed, notes)
    with open_store(location) as store:
        record = store.add_evaluation(reference, evaluation)
    if as_json:
        print_json(record.as_json())
    else:
        click.echo(str(record.id))
        click.echo(f"Recorded {metric} {value:g} of {record.reference}", err=True)


@click.command("evaluations")
@click.argument("reference")
@json_option
@store_option
def evaluations(location: str, reference: str, as_json: bool) -> None:
    """List the measured numbers of a version, oldest first.

    Example: patchbay adapters evaluations acme/redact-email:3
    """
    with open_store(location) as store:
        found = store.evaluations(reference)
    if as_json:
        print_json([record.as_json() for record in found])
        return
    rows = [("ID", "METRIC", "VALUE", "SPLIT", "EXAMPLES", "SEED", "ACTOR", "AT")]
    for record in found:
        one = record.evaluation
        count, seed = ("-" if n is None else str(n) for n in (one.num_examples, one.seed))
        rows.append(
            (
                str(record.id),
                one.metric,
                f"{one.value:g}",
                one.split,
                count,
                seed,
                record.actor,
                record.at[:19],
            )
        )
    print_table(rows)
