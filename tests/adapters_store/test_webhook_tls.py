"""Deliveries over TLS go to the checked address and hold the certificate to the host's name."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from store_kit import low_rank

from adapters_store.store import Store
from adapters_store.webhooks import Deliverer, DeliveryPolicy


def write_certificate(folder: Path, name: str) -> Path:
    """A key and a certificate of its own for one host name, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    today = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    file = folder / "certificate.pem"
    file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return file


class Handler(BaseHTTPRequestHandler):
    hosts: list[str]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.hosts.append(self.headers["host"])
        self.send_response(204)
        self.end_headers()

    def log_message(self, format: str, *arguments: Any) -> None:
        return


class QuietServer(HTTPServer):
    def handle_error(self, *_: object) -> None:
        """A client that refuses the certificate hangs up."""


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    return write_certificate(tmp_path, "hooks.test")


@pytest.fixture
def receiver(certificate: Path) -> Iterator[tuple[int, list[str]]]:
    """The port of a TLS server for ``hooks.test``, and the hosts that were asked for."""
    handler = type("Own", (Handler,), {"hosts": []})
    server = QuietServer(("127.0.0.1", 0), handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield server.server_port, handler.hosts
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def names_lead_here(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let every ``.test`` name mean this machine; returns the names that were asked for."""
    resolve = socket.getaddrinfo
    asked: list[str] = []

    def getaddrinfo(host: Any, *arguments: Any, **options: Any) -> Any:
        if isinstance(host, str) and host.endswith(".test"):
            asked.append(host)
            host = "127.0.0.1"
        return resolve(host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


@pytest.mark.parametrize(
    ("host", "error"), [("hooks.test", None), ("other.test", "certificate verify failed")]
)
def test_the_certificate_is_held_to_the_name_and_the_name_is_resolved_once(
    store: Store, t5, certificate, receiver, names_lead_here, host: str, error: str | None
):
    port, hosts = receiver
    store.webhooks.add(f"https://{host}:{port}/x", events=("alias.set",), allow_private=True)
    deliverer = Deliverer(store, policy=DeliveryPolicy(first_delay_s=60), num_workers=1)
    deliverer._tls.load_verify_locations(certificate)
    store.publish("acme/task", low_rank(t5))
    counts = deliverer.deliver_due()
    assert names_lead_here == [host]
    if error is None:
        assert counts.num_delivered == 1
        assert hosts == [f"{host}:{port}"]
    else:
        assert counts.num_failed == 1
        assert hosts == []
        assert error in (store.webhooks.list()[0].last_error or "")


def test_an_unknown_authority_is_refused(store: Store, t5, receiver, names_lead_here):
    port, hosts = receiver
    store.webhooks.add(f"https://hooks.test:{port}/", allow_private=True)
    store.publish("acme/task", low_rank(t5))
    policy = DeliveryPolicy(first_delay_s=60)
    assert Deliverer(store, policy=policy, num_workers=1).deliver_due().num_failed == 1
    assert hosts == []
