"""Pickled weights into safetensors, without unpickling anything in this process.

A child process reads a folder's files with ``weights_only`` under limits on memory, time, files and
output. What it writes counts only once all of it is there.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from adapters_store.errors import (
    ArtefactTooLargeError,
    ConflictError,
    InvalidArtefactError,
    NotFoundError,
    UnsafeArtefactError,
)
from adapters_store.formats.source import FolderSource, read_file
from adapters_store.limits import DEFAULT_LIMITS, MIB, Limits

PICKLE_SUFFIXES = (".bin", ".pt", ".pth", ".ckpt", ".meta")
FACTS_SUFFIXES = (".meta",)
"""Pickles of plain values alone, which become JSON; all others hold tensors."""
RENAMED = {
    "pytorch_adapter": "adapter",
    "pytorch_model_head": "model_head",
    "pytorch_model_adapter_fusion": "model_adapter_fusion",
}
"""Stems that ``adapters`` names otherwise when it writes safetensors."""
NOT_WEIGHTS = frozenset(
    {
        "training_args",
        "mttl_args",
        "optimizer",
        "scheduler",
        "scaler",
        "rng_state",
        "random_states",
    }
)
"""Stems of what a trainer leaves beside an adapter; these files are never opened."""

_CHILD = Path(__file__).with_name("pickle_child.py")
_ZIP = b"PK\x03\x04"
_MAX_REPORT_BYTES = 64 * 1024
_CHUNK_BYTES = 8 * MIB


@dataclass(frozen=True, slots=True)
class Budget:
    """What the child may use for a folder.

    ``memory_bytes`` are address space on top of what torch itself maps; None allows three times
    the limit of a file's data, for its map, its copy and its output.
    """

    memory_bytes: int | None = None
    cpu_s: int = 300
    wall_s: float = 600.0
    open_files: int = 64


@dataclass(frozen=True, slots=True)
class Conversion:
    """Names relative to the new folder that were written, and those of pickles left alone."""

    folder: Path
    written: tuple[str, ...]
    left_out: tuple[str, ...]


def convert_pickle(
    source: str | Path,
    out: str | Path,
    limits: Limits = DEFAULT_LIMITS,
    budget: Budget | None = None,
) -> Conversion:
    """Make the folder ``out`` of an adapter's folder, its pickles turned into safetensors.

    Configurations (``*.json``) and files that are safetensors already come along. Aliased tensors
    are stored each on its own. A trainer's checkpoint gives the tensors of its state and, as
    ``<its name>.json``, its plain hyper-parameters; a library's ``NAME.meta`` becomes
    ``NAME.meta.json``. Raises NotFoundError where there is no folder or no pickle,
    ConflictError where ``out`` exists, UnsafeArtefactError for a pickle with anything but plain
    tensors or one that ends its reader, ArtefactTooLargeError over a limit; then ``out`` does not
    come into being.
    """
    folder, target = FolderSource(source), Path(out)
    sizes = folder.sizes()
    pickles = {
        name: new
        for name in sizes
        if not _is_beside(name, sizes) and (new := _new_name(name)) and new not in sizes
    }
    if len(set(pickles.values())) != len(pickles):
        raise ConflictError(
            f"{source} holds several pickles for one name: {', '.join(pickles)}",
            hint="Keep the one that the adapter is loaded from.",
        )
    if not pickles:
        raise NotFoundError(
            f"{source} holds no pickled weights to convert",
            hint=f"Files of weights end in {', '.join(PICKLE_SUFFIXES)}.",
        )
    if os.path.lexists(target):
        raise ConflictError(f"{target} exists", hint="Name a folder that does not exist yet.")
    with _made_whole(target) as partial:
        for name in sizes:
            if name.endswith((".json", ".safetensors")) and not _is_archive(folder, name):
                _copy(folder, name, partial / name, limits)
        for name, new in pickles.items():
            if sizes[name] > limits.max_data_bytes:
                raise ArtefactTooLargeError(
                    f"{name!r} has {sizes[name]} bytes; the limit is {limits.max_data_bytes}"
                )
            (partial / new).parent.mkdir(parents=True, exist_ok=True)
        _convert(folder.folder, partial, pickles, limits, budget or Budget())
        written = sorted(
            str(path.relative_to(partial)) for path in partial.rglob("*") if path.is_file()
        )
    left_out = [name for name in sizes if name.endswith(PICKLE_SUFFIXES) and name not in pickles]
    return Conversion(target, tuple(written), tuple(left_out))


def _new_name(name: str) -> str | None:
    """The new name of a pickle's content; None for any other file."""
    path = PurePosixPath(name)
    if path.suffix in FACTS_SUFFIXES:
        return f"{name}.json"
    is_trainers = path.stem.rstrip("_0123456789") in NOT_WEIGHTS
    if path.suffix not in PICKLE_SUFFIXES or is_trainers:
        return None
    return str(path.with_name(RENAMED.get(path.stem, path.stem) + ".safetensors"))


def _is_archive(folder: FolderSource, name: str) -> bool:
    """True for a pickle that is called a configuration, as mttl's ``loading_kwargs.json``."""
    size = folder.sizes()[name]
    return folder.read_range(name, 0, min(size, len(_ZIP))) == _ZIP


def _is_beside(name: str, sizes: Mapping[str, int]) -> bool:
    """True for what a library keeps beside an expert: ``NAME.<what>.bin`` with a ``NAME.meta``."""
    expert, _, what = name.removesuffix(".bin").rpartition(".")
    return name.endswith(".bin") and what != "" and f"{expert}.meta" in sizes


@contextmanager
def _made_whole(target: Path) -> Iterator[Path]:
    """A folder beside ``target`` that takes its name at the end, readable by all, or vanishes."""
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield partial
        for path in (partial, *partial.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
        try:
            partial.rename(target)
        except OSError as error:
            raise ConflictError(f"{target} cannot be made: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _copy(source: FolderSource, name: str, path: Path, limits: Limits) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    size = source.sizes()[name]
    if name.endswith(".json"):
        path.write_bytes(read_file(source, name, limits.max_manifest_bytes))
        return
    if size > limits.max_data_bytes:
        raise ArtefactTooLargeError(
            f"{name!r} has {size} bytes; {limits.max_data_bytes} are allowed"
        )
    with path.open("wb") as file:
        for begin in range(0, size, _CHUNK_BYTES):
            file.write(source.read_range(name, begin, min(begin + _CHUNK_BYTES, size)))


def _convert(
    folder: Path, out: Path, pickles: Mapping[str, str], limits: Limits, budget: Budget
) -> None:
    """Run the child on the files; raises by its report, or by how it ended."""
    order = {
        "folder": str(folder.absolute()),
        "out": str(out.absolute()),
        "files": dict(pickles),
        "max_facts_bytes": limits.max_manifest_bytes,
        "max_data_bytes": limits.max_data_bytes,
        "max_tensors": limits.max_tensors,
        "memory_bytes": budget.memory_bytes or 3 * limits.max_data_bytes + 256 * MIB,
        "cpu_s": budget.cpu_s,
        "open_files": budget.open_files,
    }
    report, code, is_late = _run(json.dumps(order), budget.wall_s)
    if is_late:
        raise UnsafeArtefactError(
            f"reading the pickles of {folder} took more than {budget.wall_s} s and was ended"
        )
    if code < 0:
        raise UnsafeArtefactError(f"the reader of {folder} was ended by signal {-code}")
    try:
        answer = json.loads(report)
        kind, message = str(answer["kind"]), str(answer["message"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UnsafeArtefactError(
            f"the reader of {folder} failed without a report (exit code {code})"
        ) from error
    if kind == "too_large":
        raise ArtefactTooLargeError(message)
    if kind == "invalid":
        raise InvalidArtefactError(message, hint="Check that the file was copied whole.")
    if kind != "done" or code != 0:
        raise UnsafeArtefactError(
            message, hint="Ask who wrote it for safetensors; only plain tensors are converted."
        )


def _run(order: str, wall_s: float) -> tuple[bytes, int, bool]:
    """The child's report (bounded), its exit code, and whether its time ran out."""
    environment = {"PATH": os.defpath, "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
    with subprocess.Popen(
        [sys.executable, "-I", str(_CHILD), order],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environment,
        cwd=tempfile.gettempdir(),
        start_new_session=True,
    ) as child:
        late = threading.Event()

        def end() -> None:
            late.set()
            _end_group(child.pid)

        timer = threading.Timer(wall_s, end)
        timer.start()
        try:
            assert child.stdout is not None
            report = child.stdout.read(_MAX_REPORT_BYTES)
            if len(report) < _MAX_REPORT_BYTES:
                os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        finally:
            timer.cancel()
            timer.join()
            _end_group(child.pid)
    return report, child.returncode, late.is_set()


def _end_group(pid: int) -> None:
    """Kill the child, which is not reaped yet, with everything it may have started."""
    try:
        os.killpg(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
