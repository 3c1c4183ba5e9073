"""A small hub on loopback: the endpoints that huggingface_hub asks when it reads a repository."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

LFS_BYTES = 1000


@dataclass
class Repo:
    """Commits by revision and their files; ``lies`` overrides what the listing says of a file."""

    refs: dict[str, str]
    files: dict[str, dict[str, bytes]]
    lies: dict[str, dict[str, Any]] = field(default_factory=dict)
    extra: list[dict[str, Any]] = field(default_factory=list)
    is_gated: bool = False


class _Server(ThreadingHTTPServer):
    """Says nothing of clients that hang up, as those that read only a part do."""

    def handle_error(self, request: object, client_address: object) -> None:
        pass


class HubServer:
    """Serves ``repos``; ``requests`` records ``(method, path, range)`` of every call."""

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.knows_ranges = True
        self.status: int | None = None
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self)

            def do_HEAD(self) -> None:
                hub.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = _Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, call: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(call.path).path).strip("/")
        self.requests.append((call.command, path, call.headers.get("range")))
        if self.status is not None:
            self._send(call, self.status, b"broken")
            return
        steps = path.split("/")
        if steps[:2] == ["api", "models"]:
            repo = self.repos.get("/".join(steps[2:4]))
            revision = "/".join(steps[5:]) if steps[4:5] == ["revision"] else "main"
            self._send_listing(call, "/".join(steps[2:4]), repo, revision)
        elif steps[2:3] == ["resolve"]:
            self._send_file(
                call, self.repos.get("/".join(steps[:2])), steps[3], "/".join(steps[4:])
            )
        else:
            self._send(call, 404, b"")

    def _send_listing(
        self, call: BaseHTTPRequestHandler, name: str, repo: Repo | None, revision: str
    ) -> None:
        if repo is None:
            self._send(call, 401, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        if repo.is_gated:
            self._send(call, 403, b"{}", {"X-Error-Code": "GatedRepo"})
            return
        commit = repo.refs.get(revision, revision)
        if commit not in repo.files:
            self._send(call, 404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [described(path, data) for path, data in repo.files[commit].items()]
        siblings = [one | repo.lies.get(one["rfilename"], {}) for one in siblings] + repo.extra
        body = json.dumps({"id": name, "sha": commit, "siblings": siblings}).encode()
        self._send(call, 200, body, {"Content-Type": "application/json"})

    def _send_file(
        self, call: BaseHTTPRequestHandler, repo: Repo | None, revision: str, path: str
    ) -> None:
        files = {} if repo is None else repo.files.get(repo.refs.get(revision, revision), {})
        if repo is None or path not in files:
            self._send(call, 404, b"", {"X-Error-Code": "EntryNotFound"})
            return
        data = files[path]
        about = described(path, data)
        etag = about["lfs"]["sha256"] if "lfs" in about else about["blobId"]
        headers = {
            "ETag": f'"{etag}"',
            "X-Repo-Commit": repo.refs.get(revision, revision),
            "X-Linked-Size": str(len(data)),
            "Accept-Ranges": "bytes",
        }
        wanted = call.headers.get("range")
        if wanted is not None and self.knows_ranges:
            begin, _, end = wanted.removeprefix("bytes=").partition("-")
            part = data[int(begin) : int(end or len(data) - 1) + 1]
            span = f"bytes {begin}-{int(begin) + len(part) - 1}/{len(data)}"
            self._send(call, 206, part, headers | {"Content-Range": span})
        else:
            self._send(call, 200, data, headers)

    def _send(
        self,
        call: BaseHTTPRequestHandler,
        status: int,
        body: bytes,
        headers: dict[str, str] | None = None,
    ) -> None:
        call.send_response(status)
        for key, value in (headers or {}).items():
            call.send_header(key, value)
        call.send_header("Content-Length", str(len(body)))
        call.end_headers()
        if call.command != "HEAD":
            try:
                call.wfile.write(body)
            except (BrokenPipeError, ConnectionResetError):
                call.close_connection = True


def described(path: str, data: bytes) -> dict[str, Any]:
    """A file as the hub lists it: large ones in LFS with their SHA-256."""
    git = hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest()
    about: dict[str, Any] = {"rfilename": path, "size": len(data), "blobId": git}
    if len(data) >= LFS_BYTES:
        sha256 = hashlib.sha256(data).hexdigest()
        about["lfs"] = {"sha256": sha256, "size": len(data), "pointerSize": 130}
    return about


@pytest.fixture
def hub_server() -> Iterator[HubServer]:
    """An empty hub."""
    server = HubServer()
    yield server
    server.close()


@pytest.fixture
def reached_hub(
    hub_server: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> HubServer:
    """The hub that this process's huggingface_hub talks to, with a cache in ``tmp_path/cache``."""
    import huggingface_hub.constants as constants

    template = hub_server.url + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", hub_server.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return hub_server
