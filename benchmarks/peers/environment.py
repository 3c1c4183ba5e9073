"""A virtual environment for each peer, made once from pinned versions and kept in a cache."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters_store.errors import UnavailableError

CACHE_VARIABLE = "PATCHBAY_PEERS"
_READY = "ready"


def cache_folder() -> Path:
    """Where environments and compiled models are kept: ``$PATCHBAY_PEERS`` or ``~/.cache``."""
    chosen = os.environ.get(CACHE_VARIABLE)
    return Path(chosen) if chosen else Path.home() / ".cache" / "patchbay" / "peers"


def interpreter(name: str) -> Path:
    """The Python of the environment of ``name``.txt, which is made when it is not there.

    Its folder carries a digest of the pins, so that other pins make another environment. Raises
    UnavailableError where it cannot be made, with pip's last words.
    """
    digest = hashlib.sha256(pins_of(name).read_bytes()).hexdigest()[:12]
    folder = cache_folder() / f"{name}-{digest}"
    with _alone(folder):
        if not (folder / _READY).exists():
            shutil.rmtree(folder, ignore_errors=True)
            _make(name, folder)
            (folder / _READY).touch()
    return _python(folder)


def pins_of(name: str) -> Path:
    """The file of exact versions."""
    return Path(__file__).with_name(f"{name}.txt")


def _python(folder: Path) -> Path:
    return folder / "bin" / "python"


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other processes from making the same environment at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with open(f"{folder}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _make(name: str, folder: Path) -> None:
    """Install exactly the pins; no package may bring another, least of all a CUDA build."""
    venv.create(folder, with_pip=True, symlinks=True)
    command = [str(_python(folder)), "-m", "pip", "install", "--no-deps", "--retries", "2"]
    command += ["--disable-pip-version-check", "--quiet", "-r", str(pins_of(name))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise UnavailableError(
            f"the environment of {name} could not be made in {folder}: pip exited with "
            f"{done.returncode}: {' '.join(said or done.stderr.splitlines()[-3:])}",
            hint=f"pip needs a package index, and one that has the CPU build of torch "
            f"(PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu). Without a network, "
            f"set {CACHE_VARIABLE} to a cache folder that a run with a network has filled.",
        )
