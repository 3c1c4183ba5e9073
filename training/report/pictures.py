"""Pictures as SVG text: lines, bars, a heat map and a dendrogram. Sizes are in pixels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from training.report.statistics import Array, Merge, leaf_order

_COLOURS = ("#1b6ca8", "#c8553d", "#4b8f29", "#7d4e9e", "#b58900", "#2a9d8f")
_WIDTH, _HEIGHT, _MARGIN = 720, 240, 44


def _svg(width: float, height: float, body: Sequence[str], title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img" '
        f'aria-label="{escape(title)}"><title>{escape(title)}</title>{"".join(body)}</svg>'
    )


def _text(x: float, y: float, text: str, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def lines(curves: Mapping[str, Sequence[tuple[float, float]]], title: str) -> str:
    """One line per curve of (step, value) points, with its own legend and both axes' ends."""
    points = [point for curve in curves.values() for point in curve]
    if not points:
        return ""
    x_low, x_high = min(p[0] for p in points), max(p[0] for p in points)
    y_low, y_high = min(p[1] for p in points), max(p[1] for p in points)
    inner_x, inner_y = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN

    def place(point: tuple[float, float]) -> tuple[float, float]:
        x = _MARGIN + inner_x * (point[0] - x_low) / ((x_high - x_low) or 1)
        y = _HEIGHT - _MARGIN - inner_y * (point[1] - y_low) / ((y_high - y_low) or 1)
        return x, y

    body = [
        f'<rect x="{_MARGIN}" y="{_MARGIN}" width="{inner_x}" height="{inner_y}" class="frame"/>',
        _text(_MARGIN, _HEIGHT - _MARGIN + 16, f"{x_low:g}"),
        _text(_WIDTH - _MARGIN, _HEIGHT - _MARGIN + 16, f"step {x_high:g}", "end"),
        _text(_MARGIN - 6, _MARGIN + 8, f"{y_high:.4g}", "end"),
        _text(_MARGIN - 6, _HEIGHT - _MARGIN, f"{y_low:.4g}", "end"),
    ]
    for number, (name, curve) in enumerate(curves.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in map(place, curve))
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        x = _MARGIN + 150 * number
        body.append(f'<rect x="{x}" y="14" width="12" height="12" fill="{colour}"/>')
        body.append(_text(x + 18, 24, name))
    return _svg(_WIDTH, _HEIGHT, body, title)


def spark(curve: Sequence[tuple[float, float]], title: str) -> str:
    """One task's curve at the size of a word, from 0 to the larger of 1 and its highest value."""
    x_low, x_high = curve[0][0], curve[-1][0]
    peak = max(1.0, *(value for _, value in curve))
    points = [
        (2 + 116 * (x - x_low) / ((x_high - x_low) or 1), 18 - 16 * max(value, 0.0) / peak)
        for x, value in curve
    ]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    drawn = f'<polyline points="{path}" fill="none" stroke="{_COLOURS[0]}" stroke-width="1.5"/>'
    last = f'<circle cx="{points[-1][0]:.1f}" cy="{points[-1][1]:.1f}" r="2" fill="{_COLOURS[0]}"/>'
    return _svg(120, 20, [drawn, last], title)


def bars(values: Array, names: Sequence[str], title: str) -> str:
    """One bar per value from 0 to the highest, with its number."""
    left, row, width = 210, 18, 400
    peak = float(values.max()) or 1.0
    body = []
    for index, (name, value) in enumerate(zip(names, values, strict=True)):
        y = 6 + row * index
        body.append(_text(left - 8, y + 11, name, "end"))
        length = width * float(value) / peak
        body.append(
            f'<rect x="{left}" y="{y}" width="{length:.1f}" height="13" fill="{_COLOURS[0]}"/>'
        )
        body.append(_text(left + length + 6, y + 11, f"{value:.3f}"))
    return _svg(left + width + 60, 12 + row * len(names), body, title)


def _shade(value: float) -> str:
    level = round(255 * (1 - min(max(value, 0.0), 1.0)))
    return f"rgb({level},{round(level * 0.55 + 110)},{round(level * 0.35 + 160)})"


def heat_map(values: Array, rows: Sequence[str], columns: Sequence[str], title: str) -> str:
    """A cell per value, dark for high; ``values`` (rows, columns) from 0 to their maximum."""
    cell_x, cell_y, left, top = 22, 16, 210, 34
    peak = float(values.max()) or 1.0
    body = [_text(left + cell_x * (j + 0.5), top - 8, c, "middle") for j, c in enumerate(columns)]
    for i, name in enumerate(rows):
        body.append(_text(left - 8, top + cell_y * (i + 0.8), name, "end"))
        for j in range(len(columns)):
            value = float(values[i, j])
            body.append(
                f'<rect x="{left + cell_x * j}" y="{top + cell_y * i}" width="{cell_x - 1}" '
                f'height="{cell_y - 1}" fill="{_shade(value / peak)}">'
                f"<title>{escape(name)}, {escape(columns[j])}: {value:.3f}</title></rect>"
            )
    return _svg(left + cell_x * len(columns) + 20, top + cell_y * len(rows) + 10, body, title)


def dendrogram(merges: Sequence[Merge], names: Sequence[str], title: str) -> str:
    """The tree of merges with the tasks on the left and distance to the right."""
    row, left, width = 16, 210, 420
    order = leaf_order(list(merges), len(names))
    highest = max((merge.height for merge in merges), default=1.0) or 1.0
    place = {leaf: (float(left), 20.0 + row * i) for i, leaf in enumerate(order)}
    body = [_text(left - 8, place[leaf][1] + 4, names[leaf], "end") for leaf in order]
    for number, merge in enumerate(merges, start=len(names)):
        (x1, y1), (x2, y2) = place[merge.left], place[merge.right]
        x = left + width * merge.height / highest
        body.append(
            f'<path d="M{x1:.1f},{y1:.1f} H{x:.1f} V{y2:.1f} H{x2:.1f}" class="branch">'
            f"<title>{merge.size} tasks at {merge.height:.3f}</title></path>"
        )
        place[number] = (x, (y1 + y2) / 2)
    return _svg(left + width + 30, 40 + row * len(names), body, title)
