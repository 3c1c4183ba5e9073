"""Signatures and targets of webhooks, without a store."""

from __future__ import annotations

import ipaddress
import socket

import pytest

from adapters_store.errors import ForbiddenError, UsageError
from adapters_store.webhooks import verify_signature
from adapters_store.webhooks.signing import sign
from adapters_store.webhooks.target import check_now, check_target, is_public

SECRET = "a-secret-of-sixteen"


def test_a_signature_holds_for_its_secret_time_and_body_alone():
    signature = sign(SECRET, "1000", b"{}")
    assert verify_signature(SECRET, "1000", b"{}", signature, now_s=1000)
    assert verify_signature(SECRET, "1000", b"{}", signature, now_s=1299)
    assert not verify_signature(SECRET, "1000", b"{}", signature, now_s=1301)
    assert not verify_signature(SECRET, "1000", b"{}", signature, now_s=699)
    assert not verify_signature(SECRET, "1001", b"{}", signature, now_s=1000)
    assert not verify_signature(SECRET, "1000", b"{ }", signature, now_s=1000)
    assert not verify_signature("another-secret-here", "1000", b"{}", signature, now_s=1000)
    assert not verify_signature(SECRET, "1000", b"{}", signature.removeprefix("v1="), now_s=1000)


@pytest.mark.parametrize("timestamp", ["", "x", "-1", "1e3", "１０００", "9" * 13])
def test_a_timestamp_that_is_no_number_is_not_verified(timestamp: str):
    assert not verify_signature(SECRET, timestamp, b"", "v1=x\xe9", now_s=1000)


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("93.184.215.14", True),
        ("2606:2800:21f:cb07::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:93.184.215.14", True),
        ("64:ff9b::10.0.0.1", False),
        ("2002:7f00:1::1", False),
    ],
)
def test_only_addresses_of_the_public_internet_are_public(address: str, expected: bool):
    assert is_public(ipaddress.ip_address(address)) is expected


def resolving(monkeypatch, *addresses: str) -> list[str]:
    """Make every name resolve to these addresses; returns the names that were asked for."""
    asked: list[str] = []

    def getaddrinfo(host, port, type=0):
        asked.append(host)
        return [(socket.AF_INET, type, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    return asked


def test_the_connection_goes_to_the_address_that_was_checked(monkeypatch):
    asked = resolving(monkeypatch, "93.184.215.14", "93.184.215.15", "93.184.215.14")
    endpoint = check_target("https://example.org/hook?x=1", allow_private=False)
    assert endpoint.urls == (
        "https://93.184.215.14:443/hook?x=1",
        "https://93.184.215.15:443/hook?x=1",
    )
    assert (endpoint.host, endpoint.server_name) == ("example.org", "example.org")
    assert asked == ["example.org"]


def test_one_private_address_among_several_refuses_the_name(monkeypatch):
    resolving(monkeypatch, "93.184.215.14", "10.0.0.1")
    with pytest.raises(ForbiddenError, match=r"10\.0\.0\.1"):
        check_target("https://example.org/", allow_private=False)
    assert len(check_target("https://example.org/", allow_private=True).urls) == 2


def test_ports_and_ipv6_hosts_are_kept_in_the_host_header():
    endpoint = check_target("http://[::1]:8080/x", allow_private=True)
    assert endpoint.urls == ("http://[::1]:8080/x",)
    assert endpoint.host == "[::1]:8080"


def test_a_name_that_is_unknown_now_may_be_added_and_nonsense_may_not(monkeypatch):
    check_now("http://name.invalid/")
    with pytest.raises(UsageError, match="no host name"):
        check_target("http://" + "a" * 70 + ".example/", allow_private=False)
