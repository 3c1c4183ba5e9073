"""The PostgreSQL server of tests and benchmarks: named or private, durable, gone at the end."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psycopg
import pytest

from benchmarks import services

ROOT = Path(__file__).resolve().parents[2]


def test_a_named_server_is_used_as_it_is(monkeypatch):
    monkeypatch.setenv(services.VARIABLE, "postgresql://somewhere/db")
    with services.postgres_server() as url:
        assert url == "postgresql://somewhere/db"


def test_a_missing_installation_says_what_to_do(monkeypatch):
    monkeypatch.delenv(services.VARIABLE, raising=False)
    monkeypatch.setattr(services, "_PLACES", ())
    monkeypatch.setenv("PATH", "/nonexistent")
    with (
        pytest.raises(services.ServiceMissingError, match="apt-get install postgresql"),
        services.postgres_server(),
    ):
        pass


@pytest.fixture
def open_folder():
    """A folder that the server's own user may enter."""
    with tempfile.TemporaryDirectory(prefix="patchbay-test-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


def test_a_command_runs_beside_a_durable_server_that_stops_with_it(postgres, open_folder):
    environment = {name: value for name, value in os.environ.items() if name != services.VARIABLE}
    command = (
        f"import os, pathlib, psycopg; url = os.environ['{services.VARIABLE}']\n"
        "settings = 'SHOW fsync', 'SHOW synchronous_commit', 'SHOW listen_addresses'\n"
        "with psycopg.connect(url) as connection:\n"
        "    print(*(connection.execute(one).fetchone()[0] for one in settings))\n"
        "pathlib.Path('url').write_text(url)\n"
        "raise SystemExit(7)\n"
    )
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "services.py"), sys.executable, "-c", command],
        cwd=open_folder,
        env={**environment, "TMPDIR": str(open_folder)},
        capture_output=True,
        text=True,
        check=False,
    )
    if "not installed" in done.stderr:
        pytest.skip("a named server is used here; PostgreSQL's own programs are not installed")
    assert (done.returncode, done.stdout) == (7, "on on 127.0.0.1\n"), done.stderr
    assert [path.name for path in open_folder.iterdir()] == ["url"]
    with pytest.raises(psycopg.OperationalError, match="refused"):
        psycopg.connect((open_folder / "url").read_text())


def test_a_new_database_is_empty_and_dropped(postgres):
    with services.new_database(postgres) as url, psycopg.connect(url) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'")
        [name] = connection.execute("SELECT current_database()").fetchone() or ("",)
    with psycopg.connect(postgres) as connection:
        query = "SELECT 1 FROM pg_database WHERE datname = %s"
        assert connection.execute(query, [name]).fetchone() is None
