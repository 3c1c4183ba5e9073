"""Making the bundled folder from a finished run: ``python -m patchbay.bundle RUN [FOLDER]``.

Writes the backbone in bfloat16, the bank, the seen tasks' routing, the held-out tasks' names and a
model card whose scores are measured on the weights as they are stored. A ``NOTES.md`` in the run
folder goes into the card.
"""

from __future__ import annotations

import json
import platform
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from adapters_store.artefact import write_artefact
from patchbay.bundled import BACKBONE_NAME, FOLDER
from training.evaluation import accuracy
from training.publish import run_artefacts, run_backbone
from training.run import Run
from training.suite import TASKS

CARD = """# {name}: byte-level text-transformation backbone, bank and routing

An encoder-decoder of the T5 family over UTF-8 bytes, trained from scratch together with a bank of
{num_skills} skills x {num_heads} heads (MHR, rank {rank}) and one routing per seen task, on text
that the project generates itself (`training/suite`). The task is never named in the input: the
routing alone selects it. No outside data or weights were used. Licence: Apache-2.0.

| | |
| --- | --- |
| command | `patchbay train run {recipe}`, then `python -m patchbay.bundle RUN` |
| seed | {seed} |
| steps | {steps} of {rows} rows |
| training time | {minutes:.0f} minutes, one torch thread, {machine} |
| parameters | {parameters} |
| stored as | backbone bfloat16 ({backbone_mb:.1f} MB), bank and routing float32 |
| fingerprint | `{fingerprint}` |

{notes}
Limits: inputs up to {max_in} bytes and outputs up to {max_out}, the formats of the suite, mostly
ASCII. It is made to show routing, not to be a general language model.

## Exact match on test inputs

{num_test} unseen inputs a task, made from vocabularies disjoint from training; measured on the
stored (rounded) weights. Mean {mean:.3f}, lowest {lowest:.3f}.

| task | exact match | what it does |
| --- | --- | --- |
{rows_table}
"""


def bundle(run_folder: Path, folder: Path = FOLDER) -> dict[str, float]:
    """Write the bundle of a finished run; returns the test score per task."""
    run = Run.restored(run_folder)
    shutil.rmtree(folder, ignore_errors=True)
    exported = run_backbone(run, run_folder, name=BACKBONE_NAME)
    shutil.copytree(exported.folder, folder / "backbone")
    with torch.no_grad():  # what is scored is what is stored
        for name, parameter in run.model.model.named_parameters():
            if ".method." not in name:
                parameter.copy_(parameter.to(torch.bfloat16))
    bank, tasks = run_artefacts(run, run_folder, exported)
    if bank is None:
        raise SystemExit("this run has no bank to bundle")
    write_artefact(bank, folder / "bank")
    scores: dict[str, float] = {}
    for index, task in enumerate(run.tasks):
        write_artefact(tasks[task.name], folder / "routing" / task.name)
        scores[task.name] = accuracy(run.model, run.objective, index, task.test)
        print(f"{task.name:26} {scores[task.name]:.3f}", file=sys.stderr, flush=True)
    card = _card(run, run_folder, scores, exported.fingerprint, folder)
    (folder / "MODEL_CARD.md").write_text(card, encoding="utf-8")
    (folder / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    return scores


def _card(
    run: Run, run_folder: Path, scores: Mapping[str, float], fingerprint: str, folder: Path
) -> str:
    recipe = run.recipe
    outcome: dict[str, Any] = json.loads((run_folder / "outcome.json").read_text("utf-8"))
    counts = {"bank": 0, "routing": 0, "backbone": 0}
    for name, parameter in run.model.named_parameters():
        kind = "bank" if ".method." in name else "backbone"
        counts["routing" if name.endswith(".logits") else kind] += parameter.numel()
    weights = folder / "backbone" / "model.safetensors"
    notes = run_folder / "NOTES.md"
    return CARD.format(
        name=BACKBONE_NAME,
        num_skills=recipe.method.num_skills,
        num_heads=recipe.method.num_heads,
        rank=recipe.method.rank,
        recipe=recipe.name,
        seed=recipe.train.seed,
        steps=recipe.train.steps,
        rows=recipe.train.rows_per_step,
        minutes=outcome["seconds"] / 60,
        machine=f"{platform.machine()} CPU, torch {torch.__version__}",
        parameters=f"backbone {counts['backbone']:,}, bank {counts['bank']:,}, "
        f"routing {counts['routing'] // len(run.tasks):,} a task",
        backbone_mb=weights.stat().st_size / 1e6,
        fingerprint=fingerprint,
        notes=notes.read_text("utf-8") if notes.is_file() else "",
        max_in=recipe.max_input_tokens - 1,
        max_out=recipe.max_output_tokens - 1,
        num_test=recipe.tasks.num_test,
        mean=sum(scores.values()) / len(scores),
        lowest=min(scores.values()),
        rows_table="\n".join(
            f"| `{name}` | {score:.3f} | {TASKS[name].description} |"
            for name, score in sorted(scores.items())
        ),
    )


if __name__ == "__main__":
    bundle(Path(sys.argv[1]), *(Path(path) for path in sys.argv[2:3]))
