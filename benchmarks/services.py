"""A PostgreSQL server for tests and benchmarks; ``python -m benchmarks.services COMMAND...`` too.

The variable ``PATCHBAY_TEST_POSTGRES`` names a server where databases may be made and dropped.
Without it a private one is started from the installed binaries: its data in a temporary folder, on
loopback alone, with a random password, durable as in production, gone afterwards. Given a command,
this runs it with the variable set and exits with its exit code, on the standard library alone.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

VARIABLE = "PATCHBAY_TEST_POSTGRES"
_PLACES = ("usr/lib/postgresql/*/bin", "usr/pgsql-*/bin")
_USER = "patchbay"
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0
_NUM_ATTEMPTS = 3


class ServiceMissingError(RuntimeError):
    """PostgreSQL is not here; the message says what to do."""


@contextmanager
def postgres_server() -> Iterator[str]:
    """The URL of a server, the named one or a private one that stops at the end.

    Raises ServiceMissingError where there is neither, RuntimeError where it does not start.
    """
    named = os.environ.get(VARIABLE)
    if named:
        yield named
        return
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="patchbay-postgres-"))
    try:
        owner = _unprivileged(folder)
        password = secrets.token_urlsafe(16)
        _make_cluster(programs, folder, owner, password)
        process, port = _start(programs, folder, owner)
        try:
            yield f"postgresql://{_USER}:{password}@127.0.0.1:{port}/postgres"
        finally:
            _stop(process)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def new_database(server: str) -> Iterator[str]:
    """The URL of an empty database on a server; dropped at the end. Needs psycopg."""
    import psycopg

    name = f"patchbay_test_{secrets.token_hex(8)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} ENCODING 'UTF8' TEMPLATE template0")
    try:
        yield urlsplit(server)._replace(path=f"/{name}").geturl()
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")


def _programs() -> Path:
    """The newest installed folder with ``initdb`` and ``postgres``."""
    found = [path for place in _PLACES for path in Path("/").glob(place)]
    on_path = shutil.which("initdb")
    if on_path is not None:
        found.append(Path(on_path).resolve().parent)
    usable = [path for path in found if (path / "initdb").is_file()]
    if not usable:
        raise ServiceMissingError(
            "PostgreSQL is not installed: install it (Debian: apt-get install postgresql), or set "
            f"{VARIABLE} to the URL of a server where databases may be made"
        )
    return max(usable, key=lambda path: [int(part) for part in re.findall(r"[0-9]+", str(path))])


def _unprivileged(folder: Path) -> dict[str, Any]:
    """Arguments of ``Popen`` for another user where this one is root, whom PostgreSQL refuses."""
    if os.geteuid() != 0:
        return {}
    import pwd

    for name in ("postgres", "nobody"):
        try:
            account = pwd.getpwnam(name)
        except KeyError:
            continue
        os.chown(folder, account.pw_uid, account.pw_gid)
        return {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}
    raise ServiceMissingError("PostgreSQL refuses to run as root, and no other user was found")


def _make_cluster(programs: Path, folder: Path, owner: dict[str, Any], password: str) -> None:
    secret = folder / "password"
    secret.touch(mode=0o600)
    secret.write_text(password)
    if owner:
        os.chown(secret, owner["user"], owner["group"])
    command = [
        str(programs / "initdb"),
        f"--pgdata={folder / 'data'}",
        f"--username={_USER}",
        f"--pwfile={secret}",
        "--auth=scram-sha-256",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--no-sync",
    ]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, **owner)
    if done.returncode != 0:
        raise RuntimeError(f"initdb failed with {done.returncode}: {done.stderr.strip()}")


def _start(
    programs: Path, folder: Path, owner: dict[str, Any]
) -> tuple[subprocess.Popen[bytes], int]:
    log = folder / "log"
    for _ in range(_NUM_ATTEMPTS):
        port = _free_port()
        command = [
            *_dying_with_parent(),
            str(programs / "postgres"),
            "-D",
            str(folder / "data"),
            *_settings(port),
        ]
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, cwd=folder, stdout=output, stderr=output, start_new_session=True, **owner
            )
        if _is_up(programs, process, port):
            return process, port
        _stop(process)
    raise RuntimeError(f"PostgreSQL did not start: {log.read_text(errors='replace')[-2000:]}")


def _settings(port: int) -> list[str]:
    settings = {
        "port": port,
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": "",
        "fsync": "on",
        "synchronous_commit": "on",
        "max_connections": 200,
        "shared_buffers": "128MB",
    }
    return [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]


def _dying_with_parent() -> list[str]:
    """A prefix that stops the server where the starting process is killed, on Linux."""
    program = shutil.which("setpriv")
    return [program, "--pdeathsig", "INT", "--"] if program else []


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def _is_up(programs: Path, process: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until the server answers; False where it ended or is late."""
    probe = [str(programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
    give_up_at = time.monotonic() + _START_TIMEOUT_S
    while process.poll() is None and time.monotonic() < give_up_at:
        if subprocess.run(probe, check=False).returncode == 0:
            return process.poll() is None
        time.sleep(0.1)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Immediate shutdown, without a last checkpoint: the data goes away with the server."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGQUIT)
    try:
        process.wait(_STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main(command: list[str]) -> int:
    """Run a command beside a server; returns its exit code."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    with postgres_server() as url:
        return subprocess.run(command, env={**os.environ, VARIABLE: url}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
