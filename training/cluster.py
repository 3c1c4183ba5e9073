"""Ray Train runs a recipe on several workers, which meet in the run's folder.

A worker that dies ends its group; Ray starts another group, which goes on from the folder's
checkpoint. The recipe and the paths go to the workers; the outcome alone comes back.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters_store.errors import PatchbayError, TrainingError
from training import checkpoint, log
from training.interrupt import deferred_interrupt
from training.local_ray import connected
from training.loop import Outcome, Report
from training.recipe import Recipe
from training.run import train_recipe
from training.workers import Workers

STOP_FILE = "stop"
"""Its presence in a run's folder asks the workers to stop; the one who asked removes it."""
MAX_FAILURES = 3
_POLL_S = 0.2
_TRAIN_ENVIRONMENT = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # a recipe's paths are relative to where the command runs
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "300",
}


@dataclass(frozen=True)
class Cluster:
    """Where and on how much: the address of a running Ray, or None for a private local one.

    ``max_failures`` is how often the group may be started anew. Each worker takes one CPU, and one
    GPU if ``has_gpus``.
    """

    num_workers: int
    address: str | None = None
    max_failures: int = MAX_FAILURES
    has_gpus: bool = False


@dataclass(frozen=True)
class _Ending:
    """What a worker tells at its end: the outcome, or the typed error, or neither if stopped."""

    outcome: Outcome | None = None
    fault: PatchbayError | None = None


def train_on_ray(
    recipe: Recipe, folder: Path, cluster: Cluster, report: Report | None = None
) -> Outcome:
    """Train the recipe in ``folder`` on the cluster's workers, going on from its checkpoint.

    Every worker must see ``folder`` under the same path. Raises :class:`UnavailableError` without
    Ray Train or enough CPUs, and a run's own errors as one process does; a group that died more
    than ``max_failures`` times raises :class:`TrainingError`. A first Ctrl-C lets the workers save
    the running step and then raises KeyboardInterrupt; a second one ends them where they are.
    """
    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    stop = folder / STOP_FILE
    stop.unlink(missing_ok=True)
    for key, value in _TRAIN_ENVIRONMENT.items():
        os.environ.setdefault(key, value)
    with connected(cluster.address, cluster.num_workers, has_gpus=cluster.has_gpus):
        fitting = ThreadPoolExecutor(1).submit(_fit, recipe, folder, cluster)
        records = _Tail(folder / log.LOG_FILE, checkpoint.latest_step(folder) or 0)
        try:
            with deferred_interrupt() as interrupt:
                while not fitting.done():
                    wait([fitting], timeout=_POLL_S)
                    for record in records.added():
                        if report:
                            report(record)
                    if interrupt.is_set:
                        stop.touch()
            ending = fitting.result()
        finally:
            stop.unlink(missing_ok=True)
    if ending.fault is not None:
        raise ending.fault
    if ending.outcome is None:
        raise KeyboardInterrupt
    return ending.outcome


def _fit(recipe: Recipe, folder: Path, cluster: Cluster) -> _Ending:
    """Ray Train's whole run; outside the main thread, where Ray leaves Ctrl-C alone."""
    from ray.train import FailureConfig, RunConfig, ScalingConfig, TrainingFailedError
    from ray.train.torch import TorchTrainer
    from ray.train.v2.api.config import LoggingConfig

    trainer = TorchTrainer(
        _work,
        train_loop_config={
            "recipe": recipe.model_dump(mode="json"),
            "folder": str(folder),
            "cwd": os.getcwd(),
        },
        scaling_config=ScalingConfig(num_workers=cluster.num_workers, use_gpu=cluster.has_gpus),
        run_config=RunConfig(
            name=folder.name,
            storage_path=str(folder.parent),
            failure_config=FailureConfig(max_failures=cluster.max_failures),
            logging_config=LoggingConfig(log_level="ERROR"),
        ),
    )
    try:
        result = trainer.fit()
    except TrainingFailedError as error:
        raise TrainingError(
            f"the workers failed {cluster.max_failures + 1} time(s), the last time so: {error}",
            hint=f"Mend the cause, then `patchbay train resume {folder}`.",
        ) from error
    ending: _Ending = result.return_value
    return ending


def _work(config: dict[str, Any]) -> _Ending:
    """One worker's part, in a thread of a process that Ray started and joined to the others."""
    if Path(config["cwd"]).is_dir():
        os.chdir(config["cwd"])
    recipe, folder = Recipe.model_validate(config["recipe"]), Path(config["folder"])
    try:
        workers = Workers(recipe.train.mixed_precision)
        is_asked = (folder / STOP_FILE).exists if workers.is_main else None
        return _Ending(train_recipe(recipe, folder, workers, is_asked_to_stop=is_asked))
    except PatchbayError as error:
        return _Ending(fault=error)
    except KeyboardInterrupt:
        return _Ending()


class _Tail:
    """The records of a log beyond a step, each step's once, however often the log is begun anew."""

    def __init__(self, path: Path, step: int) -> None:
        self._path, self._step = path, step
        self._offset = 0

    def added(self) -> Iterator[dict[str, Any]]:
        """The whole lines since the last call whose step is a new one."""
        if not self._path.exists() or self._path.stat().st_size == self._offset:
            return
        with self._path.open("rb") as file:
            file.seek(max(0, self._offset - 1))
            if self._offset and file.read(1) != b"\n":  # cut and grown anew: not a line's end
                file.seek(0)
                self._offset = 0
            whole = file.read().rpartition(b"\n")[0]
        if not whole:
            return
        self._offset += len(whole) + 1
        for line in whole.splitlines():
            record: dict[str, Any] = json.loads(line)
            if record["step"] > self._step:
                self._step = record["step"]
                yield record
