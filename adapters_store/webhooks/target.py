"""Where a webhook may connect to: public http(s) addresses, unless its owner allowed others.

A name is resolved once, every address it gives is checked, and the connection goes to a checked
address, so that a name which resolves differently a moment later changes nothing.
"""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from adapters_store.errors import ForbiddenError, UsageError

MAX_URL_CHARACTERS = 2000
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A checked target: ``urls`` name addresses to connect to, in the resolver's order.

    ``host`` is what was asked for and goes into the Host header, with the port where one was
    given; ``server_name`` goes into TLS, where the certificate is held to it.
    """

    urls: tuple[str, ...]
    host: str
    server_name: str


def check_url(url: str) -> SplitResult:
    """The parts of a webhook's URL; raises UsageError unless it is a plain http(s) URL."""
    shown = url[:200]
    if len(url) > MAX_URL_CHARACTERS or not url.isascii() or not url.isprintable() or " " in url:
        raise UsageError(
            f"webhook URL {shown!r} is not printable ASCII of at most {MAX_URL_CHARACTERS} "
            "characters",
            param="url",
        )
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UsageError(f"webhook URL {shown!r} cannot be read: {error}", param="url") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise UsageError(f"webhook URL {shown!r}; expected http(s)://host/path", param="url")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise UsageError(
            "the webhook URL carries a user, a password or a fragment; expected none of them",
            hint="Deliveries are signed: the receiver needs no password in the URL.",
            param="url",
        )
    return parts


def is_public(address: Address) -> bool:
    """True for a unicast address of the public internet, also behind IPv6 transition forms."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast and not address.is_reserved


def check_now(url: str) -> None:
    """Raise ForbiddenError where the URL's host is known here and not public.

    A name that cannot be resolved now is checked when something is delivered to it.
    """
    try:
        check_target(url, allow_private=False)
    except OSError:
        return


def check_target(url: str, *, allow_private: bool) -> Endpoint:
    """Resolve a URL's host and check every address.

    Raises UsageError for a URL of another form, ForbiddenError where an address is not public and
    ``allow_private`` is False, OSError where the name cannot be resolved.
    """
    parts = check_url(url)
    host = parts.hostname or ""
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except UnicodeError as error:
        raise UsageError(f"webhook host {host!r} is no host name: {error}", param="url") from error
    addresses = [_address(str(sockaddr[0])) for *_, sockaddr in found]
    hidden = [address for address in addresses if not is_public(address)]
    if hidden and not allow_private:
        raise ForbiddenError(
            f"webhook host {host!r} is {hidden[0]}, which is not a public address",
            hint="Allow it (`--allow-private`) if a private receiver is intended.",
        )
    named = f"[{host}]" if ":" in host else host
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    locations = [f"[{at}]" if at.version == 6 else str(at) for at in dict.fromkeys(addresses)]
    return Endpoint(
        urls=tuple(f"{parts.scheme}://{at}:{port}{path}" for at in locations),
        host=named if parts.port is None else f"{named}:{parts.port}",
        server_name=host,
    )


def _address(text: str) -> Address:
    return ipaddress.ip_address(text.partition("%")[0])
