"""``diff``: what changed between two versions."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from adapters_store.cli.options import json_option, open_store, store_option
from adapters_store.printing import print_json, print_table

if TYPE_CHECKING:
    from adapters_store.difference import Change, Difference

_MAX_SHOWN = 100


@click.command("diff")
@click.argument("left")
@click.argument("right")
@json_option
@store_option
def diff(location: str, left: str, right: str, as_json: bool) -> None:
    """Compare two versions: fields, parts, tensors with their largest and mean difference.

    Example: patchbay adapters diff acme/redact-email:1 acme/redact-email:2
    """
    from adapters_store.difference import compare

    with open_store(location) as store:
        found = compare(store, left, right)
    if as_json:
        print_json(found.as_json())
        return
    print_table(_rows(found))
    if found.has_same_content:
        click.echo("All tensors are equal.", err=True)


def _rows(found: Difference) -> list[tuple[str, ...]]:
    rows: list[tuple[str, ...]] = [("", "LEFT", "RIGHT"), ("reference", found.left, found.right)]
    for group in (found.fields, found.parts):
        rows += [(change.place, *_sides(change)) for change in group]
    rows += [(f"provenance.{change.place}", *_sides(change)) for change in found.provenance]
    for tensor in found.tensors:
        right = tensor.right or "-"
        if tensor.max_difference is not None:
            right += f"  max {tensor.max_difference:.3g} mean {tensor.mean_difference:.3g}"
        rows.append((tensor.name, tensor.left or "-", right))
    rows.append(("equal tensors", str(found.num_equal_tensors), ""))
    return rows


def _sides(change: Change) -> tuple[str, str]:
    return _shown(change.left), _shown(change.right)


def _shown(value: Any) -> str:
    if value is None:
        return "-"
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}..."
