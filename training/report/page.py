"""The page of one run: what was trained, how it went, what its routing looks like."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from adapters_store.errors import NotFoundError
from training import checkpoint, log
from training.report import pictures, routing
from training.report.html import cut, table
from training.report.routing import MAX_TASKS
from training.run import ENVIRONMENT_FILE, RECIPE_FILE, read_recipe

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
    "color:#222}h1,h2{line-height:1.2}table{border-collapse:collapse;margin:1rem 0}"
    "td,th{padding:.15rem .8rem .15rem 0;text-align:left;vertical-align:top}"
    "svg{max-width:100%;height:auto;margin:.5rem 0}svg text{font:11px system-ui,sans-serif;"
    "fill:#333}.frame{fill:none;stroke:#bbb}.branch{fill:none;stroke:#1b6ca8;stroke-width:1.5}"
    "code{font-size:.9em}"
)


def write_report(folder: Path, target: Path | None = None) -> Path:
    """Write the page of the run in ``folder``, by default to its ``report.html``.

    The page refers to nothing outside itself. Raises NotFoundError where the folder holds no run.
    """
    if not (folder / RECIPE_FILE).is_file():
        raise NotFoundError(
            f"no run in {folder}: {RECIPE_FILE} is missing",
            hint="`patchbay train ls` lists runs and recipes.",
        )
    path = target or folder / "report.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(folder), encoding="utf-8")
    return path


def page(folder: Path) -> str:
    """The page as text."""
    recipe, records = read_recipe(folder), log.records(folder)
    sections = [
        ("Run", table(_about(folder, recipe.model_dump(mode="json")))),
        ("Learning", _curves(records)),
        ("Tasks", _scores(records, recipe.metric)),
        ("Gradient alignment", _alignment(records)),
    ]
    logits = routing.read_logits(folder)
    if logits is not None:
        sections += routing.sections(*logits, recipe.method.gate)
    body = "".join(f"<h2>{escape(title)}</h2>{part}" for title, part in sections if part)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(recipe.name)}'
        f"</title><style>{_STYLE}</style></head><body><h1>{escape(recipe.name)}</h1>{body}"
        "</body></html>\n"
    )


def _about(folder: Path, recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    last = checkpoint.latest_step(folder)
    rows = [("step", f"{last or 0} of {recipe['train']['steps']}")]
    if last is not None:
        keep = recipe["train"]["keep"]
        rows.append(("weights", f"of step {checkpoint.stored(folder, keep)[0]}: the {keep}"))
    for section in ("objective", "metric", "backbone", "tasks", "method", "train"):
        value = recipe[section]
        rows.append((section, value if isinstance(value, str) else _settings(value)))
    environment = folder / ENVIRONMENT_FILE
    if environment.exists():
        kept = json.loads(environment.read_text(encoding="utf-8"))
        rows.append(("versions", _settings(kept["versions"])))
        rows.append(("data", kept["data"]))
    return rows


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)


def _curves(records: Sequence[Mapping[str, Any]]) -> str:
    def curve(key: str) -> list[tuple[float, float]]:
        return [(record["step"], record[key]) for record in records if key in record]

    drawn = [pictures.lines({"training loss": curve("loss")}, "Training loss by step")]
    if dev := curve("dev"):
        drawn.append(pictures.lines({"mean dev score": dev}, "Mean score on dev by step"))
    return "".join(drawn)


def _scores(records: Sequence[Mapping[str, Any]], metric: str) -> str:
    """Every task's curve, best and last score on dev, lowest last score first."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for record in records:
        for name, score in record.get("dev_tasks", {}).items():
            curves.setdefault(name, []).append((record["step"], score))
    if not curves:
        return ""
    ordered = sorted(curves.items(), key=lambda item: item[1][-1][1])[:MAX_TASKS]
    lines = "".join(
        f"<tr><th>{escape(name)}</th><td>{curve[-1][1]:.3f}</td>"
        f"<td>{max(score for _, score in curve):.3f}</td>"
        f"<td>{pictures.spark(curve, f'{name} on dev by step')}</td></tr>"
        for name, curve in ordered
    )
    return (
        f"<p>Scores on dev ({escape(metric)}), lowest first.</p>"
        + cut(len(ordered), len(curves), "tasks, those of the lowest scores")
        + "<table><tr><th>task</th><th>last</th><th>best</th><th>by step</th></tr>"
        + f"{lines}</table>"
    )


def _alignment(records: Sequence[Mapping[str, Any]]) -> str:
    """Both measures by step, and the last cosine of every pair of probed tasks."""
    found = [record["alignment"] for record in records if "alignment" in record]
    if not found:
        return ""
    curves = {
        key: [(r["step"], r["alignment"][key]) for r in records if "alignment" in r]
        for key in ("shared", "composed")
    }
    names = found[-1]["tasks"]
    pairs = pictures.heat_map(
        np.array(found[-1]["pairs"]),
        names,
        [str(index + 1) for index in range(len(names))],
        "Last cosine of each pair of tasks on shared parameters, in the order of the rows",
    )
    about = (
        f"<p>Mean cosine between the gradients of {len(names)} probed tasks: on the parameters "
        "that they share, and on the factors that each task's rows see. In the picture white is "
        "zero or less.</p>"
    )
    return about + pictures.lines(curves, "Gradient alignment between tasks by step") + pairs
