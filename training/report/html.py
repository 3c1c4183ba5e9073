"""Pieces of HTML that the page's sections are made of."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """A table of text whose first column heads its rows."""
    lines = "".join(
        f"<tr><th>{escape(first)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    return f"<table>{lines}</table>"


def cut(shown: int, number: int, what: str) -> str:
    """A sentence that says how many of a number are shown; nothing where all are."""
    return "" if shown == number else f"<p>Shown: {shown} of {number} {escape(what)}.</p>"
