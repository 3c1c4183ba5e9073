"""A Ray to train on: one that runs already, or a private one on this machine."""

from __future__ import annotations

import logging
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import training
from adapters_store.errors import UnavailableError, UsageError

START_ATTEMPTS = 3
OBJECT_STORE_BYTES = 100 * 2**20


@contextmanager
def connected(address: str | None, num_workers: int, *, has_gpus: bool = False) -> Iterator[None]:
    """Connect to the Ray at ``address``, or start one with a CPU per worker, and leave it after.

    A process that is connected to a Ray already stays with that one. A Ray of one's own runs
    without dashboard and usage reports, behind a random token, on the loopback interface alone.
    Raises :class:`UsageError` for a Ray Client address and :class:`UnavailableError` where Ray
    Train is not installed, Ray does not start or answer, or the workers would wait for CPUs or
    GPUs that the cluster does not have.
    """
    if address is not None and address.startswith("ray://"):
        raise UsageError(
            f"{address} is a Ray Client address; give host:port or auto, on a node of the cluster"
        )
    if address is None:
        _prepare_environment()
    _import_ray_train()
    import ray

    is_joined_already = ray.is_initialized()
    if is_joined_already:
        pass
    elif address is None:
        _start(num_workers)
    else:
        _connect(address)
    try:
        _check_room(address, num_workers, has_gpus)
        yield
    finally:
        if not is_joined_already:
            ray.shutdown()


def _import_ray_train() -> None:
    try:
        import ray.train.torch  # noqa: F401
    except ImportError as error:
        raise UnavailableError(
            f"several workers need Ray Train, which cannot be imported: {error}",
            hint='Install it with `pip install "patchbay[scale]"`, or start with torchrun.',
        ) from error


def _prepare_environment() -> None:
    """Settings that Ray reads when it is imported; what the caller has set stays.

    ``RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER`` 0 makes a node take 127.0.0.1 as its address.
    """
    root = str(Path(training.__file__).parent.parent)
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    defaults = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",  # nobody takes this machine away
    }
    for key, value in defaults.items():
        os.environ.setdefault(key, value)


def _start(num_workers: int) -> None:
    """Start a local Ray; one that is slow to start, on a busy machine, is tried again."""
    import ray

    num_cpus = os.cpu_count() or 1
    if num_workers > num_cpus:
        print(f"{num_workers} workers share {num_cpus} CPUs", file=sys.stderr, flush=True)
    problem: Exception | None = None
    for _ in range(START_ATTEMPTS):
        try:
            ray.init(
                address="local",
                num_cpus=num_workers,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.ERROR,
                configure_logging=False,
            )
        except Exception as error:  # noqa: BLE001  Ray raises the base class itself
            problem = error
            ray.shutdown()
        else:
            return
    raise UnavailableError(
        f"the local Ray did not start in {START_ATTEMPTS} attempts: {problem}",
        hint="Look for a busy machine or a full /tmp and /dev/shm; Ray waits 30 seconds each time.",
    ) from problem


def _connect(address: str) -> None:
    import ray

    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
    except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
        raise UnavailableError(
            f"no Ray answers at {address}: {error}",
            hint="Look at `ray status` on that cluster; RAY_AUTH_TOKEN must hold its token.",
        ) from error


def _check_room(address: str | None, num_workers: int, has_gpus: bool) -> None:
    """Refuse what the cluster could never place, which Ray would wait for without a word."""
    import ray

    total, free = ray.cluster_resources(), ray.available_resources()
    for kind in ("CPU", "GPU") if has_gpus else ("CPU",):
        if total.get(kind, 0) < num_workers:
            raise UnavailableError(
                f"{num_workers} workers need {num_workers} {kind}s; the Ray at "
                f"{address or 'this machine'} has {total.get(kind, 0):g}",
                hint="Give fewer --workers, or add nodes to the cluster first.",
            )
        if free.get(kind, 0) < num_workers:
            print(
                f"waiting for {num_workers} {kind}s of the Ray at {address}; "
                f"{free.get(kind, 0):g} are free now",
                file=sys.stderr,
                flush=True,
            )
