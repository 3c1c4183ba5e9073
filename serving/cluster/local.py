"""A local Ray that serves one application until it is told to stop."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import serving
from adapters_store.canonical import strict_json
from adapters_store.errors import NotFoundError, UnavailableError
from adapters_store.families import family_of
from adapters_store.store import Store
from serving.config import ServeConfig

APPLICATION = "patchbay"
START_ATTEMPTS = 3
OBJECT_STORE_BYTES = 100 * 2**20


@contextmanager
def serve_locally(config: ServeConfig) -> Iterator[str]:
    """Start a private local Ray, deploy the application, yield its URL, stop everything.

    Ray runs without dashboard and usage reports, behind a random token, on the loopback interface
    alone. Raises :class:`UnavailableError` when the application does not come up, and before
    anything is started the errors of a folder that holds no backbone the engine runs and of a
    store that does not open.
    """
    for backbone in config.backbones:
        check_folder(backbone.folder)
    Store.open(config.store).close()
    config = config.model_copy(update={"port": claim_port(config.host, config.port)})
    _prepare_environment(config)
    import ray
    from ray import serve

    from serving.cluster.ingress import INGRESS_CPUS, build_app

    run_folder = Path(tempfile.mkdtemp(prefix="patchbay-run-"))
    config = config.model_copy(update={"run_folder": run_folder})
    num_cpus = max(1, os.cpu_count() or 1, round(INGRESS_CPUS * config.num_replicas * 2))
    is_deployed = False
    try:
        _start_ray(num_cpus)
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        serve.start(http_options={"host": config.host, "port": config.port})
        is_deployed = True
        try:
            serve.run(build_app(config), name=APPLICATION, route_prefix="/")
        except RuntimeError as error:
            raise UnavailableError(
                f"the application did not come up: {error}",
                hint="The replica's log is in Ray's session folder, under logs/serve.",
            ) from error
        yield f"http://{config.host}:{config.port}"
    finally:
        if is_deployed:
            serve.delete(APPLICATION)
        ray.shutdown()
        shutil.rmtree(run_folder, ignore_errors=True)


def check_folder(folder: Path) -> None:
    """Raise NotFoundError, InvalidArtefactError or IncompatibleError unless the engine runs it.

    Only config.json is read.
    """
    file = folder / "config.json"
    if not file.is_file():
        raise NotFoundError(
            f"no backbone at {folder}: config.json is missing",
            hint="Give a folder written by save_pretrained with --backbone.",
        )
    document = strict_json(file.read_bytes(), str(file))
    config = document if isinstance(document, dict) else {}
    family_of(config).architecture(config)


def _start_ray(num_cpus: int) -> None:
    """Start a new local Ray; one that is slow to start, on a busy machine, is tried again."""
    import ray

    problem: Exception | None = None
    for _ in range(START_ATTEMPTS):
        try:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=False,
                logging_level=logging.WARNING,
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


def claim_port(host: str, port: int) -> int:
    """A port that is free now: ``port`` itself, or any for 0; raises UnavailableError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise UnavailableError(
                f"cannot listen on {host}:{port}: {error.strerror}",
                hint="Choose another one with --port; 0 takes any free port.",
            ) from error
        claimed: int = probe.getsockname()[1]
        return claimed


def _prepare_environment(config: ServeConfig) -> None:
    """Settings that Ray reads when it is imported; what the caller has set stays.

    ``RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER`` 0 makes a node take 127.0.0.1 as its address, so that
    none of Ray's own ports is open to the network.
    """
    root = str(Path(serving.__file__).parent.parent)
    paths = [root, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(paths))
    defaults = {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_SERVE_LOG_TO_STDERR": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_worker_niceness": "0",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_SERVE_ENABLE_HA_PROXY": "1" if config.proxy == "haproxy" else "0",
    }
    if config.proxy == "haproxy":
        defaults["RAY_SERVE_THROUGHPUT_OPTIMIZED"] = "1"
        defaults["RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP"] = "1"
    for key, value in defaults.items():
        os.environ.setdefault(key, value)
