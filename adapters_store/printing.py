"""How the registry's commands print: JSON for programs, aligned columns for people."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from adapters_store.records import Version


def print_json(value: Any) -> None:
    """Print indented JSON in UTF-8."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_versions(found: Sequence[Version]) -> None:
    """Print one line per version under a heading."""
    rows = [("NAME", "VERSION", "KIND", "ALIASES", "BYTES", "CREATED", "DIGEST")]
    for version in found:
        rows.append(
            (
                version.full_name,
                str(version.number),
                version.kind,
                ",".join(version.aliases) or "-",
                str(version.data_bytes),
                version.created_at[:19],
                version.digest[:19],
            )
        )
    print_table(rows)


def print_table(rows: Sequence[tuple[str, ...]]) -> None:
    """Print rows of cells in aligned columns."""
    if not rows:
        return
    widths = [max(len(cell) for cell in column) for column in zip(*rows)]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths))
        click.echo(line.rstrip())
