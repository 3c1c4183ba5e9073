"""An S3 server for the tests (moto's, on loopback), and a bucket of its own for each test."""

from __future__ import annotations

import datetime
import logging
import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test-key",
    "AWS_SECRET_ACCESS_KEY": "test-secret",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}
# "PUT /path HTTP/1.1", with escapes for colour around it where the answer is an error.
_REQUEST_LINE = re.compile(r'"(?:\x1b\[[0-9;]*m)*([A-Z]+ \S+) HTTP/')
OTHER_VARIABLES = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION")


class S3Server:
    """moto's server in a thread; ``requests`` lists what it was asked, as ``PUT /path?query``."""

    def __init__(self) -> None:
        from moto.server import ThreadedMotoServer

        self.requests: list[str] = []
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        logger = logging.getLogger("werkzeug")
        logger.setLevel(logging.INFO)
        logger.propagate = False
        self._handler = _Recorder(self.requests)
        logger.addHandler(self._handler)
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.url = f"http://{host}:{port}"

    def stop(self) -> None:
        """Refuse connections from now on."""
        self._server.stop()
        logging.getLogger("werkzeug").removeHandler(self._handler)


class _Recorder(logging.Handler):
    def __init__(self, requests: list[str]) -> None:
        super().__init__()
        self._requests = requests

    def emit(self, record: logging.LogRecord) -> None:
        found = _REQUEST_LINE.search(record.getMessage())
        if found:
            self._requests.append(found[1])


@dataclass
class S3Bucket:
    """An empty bucket; ``location`` is an ``s3://`` prefix in it, ``client`` boto3's."""

    name: str
    server: S3Server
    client: Any
    prefix: str = "store"
    _start: int = field(default=0, init=False)

    @property
    def location(self) -> str:
        """The ``s3://`` URL of the prefix."""
        return f"s3://{self.name}/{self.prefix}"

    def requests(self, method: str = "") -> list[str]:
        """What the server was asked about this bucket since ``forget``, of one HTTP method."""
        asked = self.server.requests[self._start :]
        return [line for line in asked if f" /{self.name}" in line and line.startswith(method)]

    def forget(self) -> None:
        """Begin a new list of requests."""
        self._start = len(self.server.requests)

    def age(self, key: str, seconds: float) -> None:
        """Make an object look as if it was written so long ago."""
        from moto.core import DEFAULT_ACCOUNT_ID
        from moto.s3.models import s3_backends

        found = s3_backends[DEFAULT_ACCOUNT_ID]["aws"].get_object(self.name, key)
        assert found is not None
        found.last_modified -= datetime.timedelta(seconds=seconds)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """One server for all tests."""
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def s3_bucket(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Bucket:
    """A bucket that no other test sees, with credentials in this test's environment."""
    return new_bucket(s3_server, monkeypatch)


def new_bucket(server: S3Server, monkeypatch: pytest.MonkeyPatch) -> S3Bucket:
    """An empty bucket on that server."""
    use_credentials(monkeypatch)
    from adapters_store.blobs.s3_client import make_client

    client = make_client(server.url, "us-east-1")
    name = f"test-{uuid.uuid4().hex}"
    client.create_bucket(Bucket=name)
    bucket = S3Bucket(name, server, client)
    bucket.forget()
    return bucket


def use_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give this test's environment the server's credentials and no others."""
    for name in OTHER_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
