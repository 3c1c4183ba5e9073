"""The page of one run: what was trained, how it went, what its routing looks like."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adapters_store.errors import NotFoundError
from adapters_store.lazy import resolve
from training import checkpoint
from training.methods.routing import GATES
from training.report import pictures
from training.report.statistics import Array, average_linkage, leaf_order, router_statistics
from training.run import RECIPE_FILE, read_recipe
from training.sources import load_tasks

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;"
    "color:#222}h1,h2{line-height:1.2}table{border-collapse:collapse;margin:1rem 0}"
    "td,th{padding:.15rem .8rem .15rem 0;text-align:left;vertical-align:top}"
    "svg{max-width:100%;height:auto;margin:.5rem 0}svg text{font:11px system-ui,sans-serif;"
    "fill:#333}.frame{fill:none;stroke:#bbb}.branch{fill:none;stroke:#1b6ca8;stroke-width:1.5}"
    "code{font-size:.9em}"
)
_MAX_TASKS = 200


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
    path.write_text(page(folder), encoding="utf-8")
    return path


def page(folder: Path) -> str:
    """The page as text."""
    recipe, records = read_recipe(folder), _records(folder)
    sections = [
        ("Run", _table(_about(folder, recipe.model_dump(mode="json")))),
        ("Learning", _curves(records)),
        ("Tasks", _scores(records)),
    ]
    logits = _logits(folder)
    if logits is not None:
        sections += _routing(*logits, recipe.method.gate)
    body = "".join(f"<h2>{escape(title)}</h2>{part}" for title, part in sections if part)
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(recipe.name)}'
        f"</title><style>{_STYLE}</style></head><body><h1>{escape(recipe.name)}</h1>{body}"
        "</body></html>\n"
    )


def _records(folder: Path) -> list[dict[str, Any]]:
    log = folder / "log.jsonl"
    if not log.exists():
        return []
    return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]


def _about(folder: Path, recipe: Mapping[str, Any]) -> list[tuple[str, str]]:
    rows = [("step", f"{checkpoint.latest_step(folder) or 0} of {recipe['train']['steps']}")]
    for section in ("objective", "backbone", "tasks", "method", "train"):
        value = recipe[section]
        rows.append((section, value if isinstance(value, str) else _settings(value)))
    environment = folder / "environment.json"
    if environment.exists():
        kept = json.loads(environment.read_text(encoding="utf-8"))
        rows.append(("versions", _settings(kept["versions"])))
        rows.append(("data", kept["data"]))
    return rows


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items() if value is not None)


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    lines = "".join(
        f"<tr><th>{escape(first)}</th>{''.join(f'<td>{escape(cell)}</td>' for cell in rest)}</tr>"
        for first, *rest in rows
    )
    return f"<table>{lines}</table>"


def _curves(records: Sequence[Mapping[str, Any]]) -> str:
    def curve(key: str) -> list[tuple[float, float]]:
        return [(record["step"], record[key]) for record in records if key in record]

    drawn = [pictures.lines({"training loss": curve("loss")}, "Training loss by step")]
    if dev := curve("dev"):
        drawn.append(pictures.lines({"mean dev score": dev}, "Mean score on dev by step"))
    aligned = {key: curve(key) for key in ("shared", "composed") if curve(key)}
    if aligned:
        drawn.append(pictures.lines(aligned, "Gradient alignment between tasks by step"))
    return "".join(drawn)


def _scores(records: Sequence[Mapping[str, Any]]) -> str:
    found = [record["dev_tasks"] for record in records if "dev_tasks" in record]
    if not found:
        return ""
    ordered = sorted(found[-1].items(), key=lambda item: item[1])
    return "<p>Last scores on dev, lowest first.</p>" + _table(
        [(name, f"{score:.3f}") for name, score in ordered[:_MAX_TASKS]]
    )


def _logits(folder: Path) -> tuple[list[str], Array] | None:
    """Task names and logits (T, S, H, K) of a run whose method routes; None for others."""
    if checkpoint.latest_step(folder) is None:
        return None
    weights = {
        name: tensor
        for name, tensor in checkpoint.stored_weights(folder).items()
        if name.endswith(".router.logits")
    }
    if not weights:
        return None
    stacked = np.stack([tensor.double().numpy() for tensor in weights.values()], axis=1)
    names = [task.name for task in load_tasks(read_recipe(folder).tasks)]
    if len(names) != len(stacked):  # the run was given its tasks by a program
        names = [f"task {index}" for index in range(len(stacked))]
    return names[:_MAX_TASKS], stacked[:_MAX_TASKS]


def _routing(names: list[str], logits_TSHK: Array, gate: str) -> list[tuple[str, str]]:
    logits = torch.from_numpy(logits_TSHK)
    weights: Array = resolve(GATES, gate, "routing gate")(logits, False).numpy()
    found = router_statistics(weights if gate == "softmax" else torch.sigmoid(logits).numpy())
    merges = average_linkage(weights.reshape(len(names), -1) - weights.mean())
    order = leaf_order(merges, len(names))
    num_skills = weights.shape[-1]
    numbers = _table(
        [
            ("discreteness", f"{found.discreteness:.3f}", "0: gates on or off; 1: undecided"),
            ("sparsity", f"{found.sparsity:.3f}", "share of gates that round to 1"),
            ("usage", f"{found.usage:.3f}", "1: all skills carry the same weight"),
        ]
    )
    heat = pictures.heat_map(
        weights.mean((1, 2))[order],
        [names[index] for index in order],
        [str(skill) for skill in range(num_skills)],
        "Mean weight of each skill by task",
    )
    by_site = pictures.heat_map(
        weights.mean((0, 2)),
        [f"router {index}" for index in range(weights.shape[1])],
        [str(skill) for skill in range(num_skills)],
        "Mean weight of each skill by router",
    )
    tree = pictures.dendrogram(merges, names, "Tasks by the distance of their routing")
    return [
        ("Routing", numbers + heat),
        ("Which tasks route alike", tree),
        ("Use of skills by router", by_site),
    ]
