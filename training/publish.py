"""Publishing a run: backbone, bank and tasks into a store, in one batch."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from adapters_store.artefact import Artefact, read_artefact
from adapters_store.backbone import Backbone
from adapters_store.errors import UsageError
from adapters_store.ledger.ancestry import LINEAGE_KEY
from adapters_store.names import check_name
from adapters_store.records import Version
from adapters_store.store import Store
from training import checkpoint, log
from training.compile import bank_sites, compile_bank, compile_task, signature
from training.export import BACKBONE_FOLDER, export_backbone
from training.methods.ia3 import Ia3Site
from training.methods.lora import LoraSite
from training.provenance import lineage
from training.recipe import MethodSection
from training.run import Run
from training.task import Task
from training.warm import is_artefact

BANK_NAME = "bank"

Form = Literal["routing", "adapter", "shared"]


def run_backbone(
    run: Run, folder: Path, *, dtype: torch.dtype = torch.bfloat16, name: str | None = None
) -> Backbone:
    """The backbone that the run's artefacts bind to: its own if trained, else the one it used.

    A trained one, or one that came from a hub, is written into the run folder first.
    """
    source = Path(run.recipe.backbone.source or "")
    if not run.recipe.backbone.is_trained and run.recipe.backbone.source and source.is_dir():
        return Backbone.from_folder(source, name=name)
    kept = dtype if run.recipe.backbone.is_trained else torch.float32
    return export_backbone(
        run.model, run.tokenizer, folder / BACKBONE_FOLDER, dtype=kept, name=name
    )


def run_artefacts(
    run: Run, folder: Path, backbone: Backbone, form: Form = "routing"
) -> tuple[Artefact | None, dict[str, Artefact]]:
    """The run's bank, if its method has one, and one artefact per task by name.

    ``form`` ``adapter`` materialises routed tasks to ``low_rank`` and leaves the bank out;
    ``shared`` gives the one adapter that all tasks share, under the recipe's name. Raises
    :class:`UsageError` where tasks share none.
    """
    recipe = run.recipe
    step, _ = checkpoint.stored(folder, recipe.train.keep)
    provenance: dict[str, Any] = {
        "method": recipe.method.model_dump(mode="json", exclude={"start"}),
        "objective": recipe.objective,
        "recipe": recipe.name,
        "steps": step,
        LINEAGE_KEY: lineage(
            recipe, run.tasks, seed=recipe.train.seed, parents=_start(recipe.method)
        ),
    }
    limits = (recipe.max_input_tokens, recipe.max_output_tokens)
    if form == "shared":
        about = signature(_all_tasks(run), recipe.objective, limits)
        adapter = compile_task(run.model, 0, backbone, about, provenance=provenance)
        return None, {recipe.name: adapter}
    bank = None
    if form == "routing" and bank_sites(run.model):
        bank = compile_bank(run.model, backbone, provenance)
    scores = _scores(folder, step)
    tasks = {
        task.name: compile_task(
            run.model,
            index,
            backbone,
            signature(task, recipe.objective, limits),
            bank=bank,
            provenance=provenance | ({"dev": scores[task.name]} if task.name in scores else {}),
        )
        for index, task in enumerate(run.tasks)
    }
    return bank, tasks


def publish_run(
    folder: Path,
    store: Store,
    tenant: str,
    *,
    form: Form = "routing",
    dtype: torch.dtype = torch.bfloat16,
    backbone_name: str | None = None,
    bank_name: str = BANK_NAME,
) -> list[Version]:
    """Publish every task of the run in ``folder`` under ``tenant``, with its bank, all or none.

    Raises :class:`NotFoundError` where the folder holds no run or no checkpoint.
    """
    check_name(tenant, "tenant")
    run = Run.restored(folder)
    backbone = run_backbone(run, folder, dtype=dtype, name=backbone_name)
    bank, tasks = run_artefacts(run, folder, backbone, form)
    known = {record.fingerprint for record in store.backbones()}
    if backbone.fingerprint not in known:
        store.add_backbone(backbone)
    items = [(f"{tenant}/{bank_name}", bank)] if bank else []
    items += [(f"{tenant}/{name}", artefact) for name, artefact in tasks.items()]
    return store.publish_many(items)


def _start(method: MethodSection) -> list[str]:
    """The digest of the artefact that the run began with, if it was one and is still there."""
    source = Path(method.start) if method.start else None
    return [read_artefact(source).digest] if source and is_artefact(source) else []


def _all_tasks(run: Run) -> Task:
    """One task that stands for all that share the run's adapter."""
    methods = run.model.site_methods().values()
    if run.model.heads or not all(
        isinstance(m, LoraSite | Ia3Site) and not m.is_private for m in methods
    ):
        raise UsageError(
            f"method {run.recipe.method.name!r} keeps something of its own for each task; "
            "one shared adapter is that of `lora` or `ia3` on a backbone that writes",
            hint="Publish with --form adapter, one artefact for each task.",
        )
    return Task(run.recipe.name, train=[task.train[0] for task in run.tasks])


def _scores(folder: Path, step: int) -> dict[str, float]:
    """Every task's score on dev when it was last measured, up to the step that is kept."""
    records = log.records(folder)
    found = [r["dev_tasks"] for r in records if "dev_tasks" in r and r["step"] <= step]
    return dict(found[-1]) if found else {}
