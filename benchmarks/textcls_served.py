"""All 17 tasks in one store, served together: is the served answer the offline one?"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx

from adapters_store.artefact import Artefact
from adapters_store.backbone import Backbone
from adapters_store.store import Store
from benchmarks import textcls_data as data
from serving.cluster.local import serve_locally
from serving.config import load_config
from training.adapt import AdaptConfig, Teacher
from training.injection import eject
from training.restore import restore
from training.task import Task

NUM_SERVED = 100
TENANT = "textcls"
_ROWS_PER_REQUEST = 20


def publish_all(
    folder: Path, backbone: Backbone, bank: Artefact, tasks: Mapping[str, Artefact]
) -> Path:
    """Publish the bank and every task's routing under one tenant; returns the store's folder."""
    with Store.open(folder) as store:
        if backbone.fingerprint not in {r.fingerprint for r in store.backbones()}:
            store.add_backbone(backbone, "minilm")
        names = {name.replace("_", "-"): artefact for name, artefact in tasks.items()}
        items = [(f"{TENANT}/bank", bank), *((f"{TENANT}/{n}", a) for n, a in names.items())]
        store.publish_many(items)
    return folder


def offline_labels(teacher: Teacher, artefact: Artefact, bank: Artefact, task: Task) -> list[str]:
    """The training code's labels of the task's test inputs, through the compiled artefact."""
    model = restore(teacher.model, teacher.backbone, artefact, bank)
    objective = teacher.objective(task, AdaptConfig(max_input_tokens=data.MAX_TOKENS))
    try:
        parts = [task.test[i : i + 50] for i in range(0, len(task.test), 50)]
        return [label for part in parts for label in objective.predict(model, 0, part)]
    finally:
        eject(teacher.model, model.sites)


def served_labels(client: httpx.Client, task: Task) -> list[str]:
    """The labels that the server answers for the task's test inputs."""
    labels: list[str] = []
    for start in range(0, len(task.test), _ROWS_PER_REQUEST):
        inputs = [example.input for example in task.test[start : start + _ROWS_PER_REQUEST]]
        path = f"/v1/tasks/{TENANT}/{task.name.replace('_', '-')}/predict"
        answer = client.post(path, json={"inputs": inputs})
        answer.raise_for_status()
        labels += [output["label"] for output in answer.json()["outputs"]]
    return labels


def compare(
    folder: Path,
    teacher: Teacher,
    bank: Artefact,
    artefacts: Mapping[str, Artefact],
    tasks: Sequence[Task],
) -> list[dict[str, Any]]:
    """One row per task: accuracy offline and over HTTP, and how many labels differ."""
    cut = [dataclasses.replace(task, test=task.test[:NUM_SERVED]) for task in tasks]
    store = publish_all(folder, teacher.backbone, bank, artefacts)
    offline = {task.name: offline_labels(teacher, artefacts[task.name], bank, task) for task in cut}
    served = {"name": "minilm", "folder": str(teacher.backbone.folder), "dtype": "float32"}
    config = load_config(flags={"backbones": [served], "store": str(store), "port": 0})
    rows = []
    with serve_locally(config) as url, httpx.Client(base_url=url, timeout=300) as client:
        for task in cut:
            online = served_labels(client, task)
            expected = [example.output for example in task.test]
            rows.append(
                {
                    "task": task.name,
                    "offline": _share(offline[task.name], expected),
                    "http": _share(online, expected),
                    "labels_differing": sum(a != b for a, b in zip(online, offline[task.name])),
                    "rows": len(expected),
                    "majority": data.majority(task),
                }
            )
            print(rows[-1], flush=True)
    return rows


def _share(found: Sequence[str], expected: Sequence[str]) -> float:
    return sum(a == b for a, b in zip(found, expected, strict=True)) / len(expected)
